package registrar

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// lookEvery is how often the folder of licences is read.
const lookEvery = 10 * time.Second

// folder holds the licences that are dropped for a server to admit. A licence that is taken out of it stays known;
// `usher upstream suspend` stops a licence.
type folder struct {
	path     string
	registry *registry.Registry
	log      *slog.Logger
	seen     map[[sha256.Size]byte]bool
}

// read admits new licences. It logs once what it cannot admit.
func (f *folder) read() error {
	if f.path == "" {
		return nil
	}
	files := []string{f.path}
	fi, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("licences: %w", err)
	}
	if fi.IsDir() {
		entries, err := os.ReadDir(f.path)
		if err != nil {
			return fmt.Errorf("licences: %w", err)
		}
		files = nil
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(f.path, e.Name()))
			}
		}
	}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Size() > plugin.MaxDocument {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.log.Warn("a licence cannot be read", "file", name, "error", err)
			continue
		}
		sum := sha256.Sum256(b)
		if f.seen[sum] {
			continue
		}
		f.seen[sum] = true
		l, err := f.registry.Admit(b)
		if err != nil {
			f.log.Warn("a licence is not admitted", "file", name, "error", err)
			continue
		}
		f.log.Info("a licence is known", "licence", l.ID, "file", name)
	}
	return nil
}

// run looks for new licences until ctx ends.
func (f *folder) run(ctx context.Context) error {
	if f.path == "" {
		return nil
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := f.read(); err != nil {
			f.log.Warn("the folder of licences cannot be read", "error", err)
		}
	}
}
