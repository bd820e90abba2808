package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// installWithin is how long an installed document may take to be seen in the folder.
const installWithin = 5 * time.Second

// Install verifies a document and puts it into the licence folder, where it is in force when Install returns. With
// dryRun it says what would change and changes nothing. An empty name means one made from the licence's id. A document
// that does not verify, or that is for another product or host, is refused: what is in force stays.
func (a *Agent) Install(ctx context.Context, document []byte, name string,
	dryRun bool) (wire.Installed, *enforcer.Denial) {
	if a.court.isKey(name, document) {
		return a.installKey(ctx, document, name, dryRun)
	}
	v := a.court.verify(document)
	if v.problem != nil {
		return wire.Installed{}, &enforcer.Denial{Code: api.DocumentRefused, Field: "document",
			Detail: fmt.Sprintf("the document is not a good licence (%s): %s", v.problem.Code, v.problem.Reason),
			Hint:   v.problem.Hint}
	}
	if name == "" {
		name = a.fileName(v.license)
	}
	before := a.desk.Verdict()
	after := a.court.would(file{name: name, data: document})
	judged := judgedAs(after, name)
	if judged.Hopeless() {
		return wire.Installed{}, &enforcer.Denial{Code: api.DocumentRefused, Field: "document",
			Detail: fmt.Sprintf("the document is a licence, but not one for here (%s): %s", judged.Code, judged.Reason)}
	}
	if !dryRun {
		if err := a.watcher.Install(name, document); err != nil {
			return wire.Installed{}, &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
		}
		if d := a.seen(ctx, nil); d != nil {
			return wire.Installed{}, d
		}
		after = a.desk.Verdict()
		judged = judgedAs(after, name)
	}
	return wire.Installed{DryRun: dryRun, Document: api.DocumentShape(judged), Changes: changes(before, after),
		License: api.LicenseShape(after, a.hostFacts())}, nil
}

// Remove takes a document out of the licence folder.
func (a *Agent) Remove(ctx context.Context, name string) *enforcer.Denial {
	if err := a.watcher.Remove(name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &enforcer.Denial{Code: api.DocumentUnknown, Field: "name",
				Detail: fmt.Sprintf("there is no document %q in the licence folder", name),
				Hint:   "`usher license list` shows what is there"}
		}
		return &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
	}
	return a.seen(ctx, func() bool { return !a.court.has(name) })
}

// Rollback undoes the last Install or Remove of a name.
func (a *Agent) Rollback(ctx context.Context, name string) (wire.Installed, *enforcer.Denial) {
	before := a.desk.Verdict()
	name, err := a.watcher.Rollback(name)
	if err != nil {
		code := enforcer.Storage
		if errors.Is(err, watch.ErrNoPrevious) {
			code = api.DocumentUnknown
		}
		return wire.Installed{}, &enforcer.Denial{Code: code, Detail: err.Error(), Field: "name"}
	}
	if d := a.seen(ctx, nil); d != nil {
		return wire.Installed{}, d
	}
	after := a.desk.Verdict()
	return wire.Installed{Document: api.DocumentShape(judgedAs(after, name)), Changes: changes(before, after),
		License: api.LicenseShape(after, a.hostFacts())}, nil
}

// seen waits until the folder has been read again and judged, and then until done says so: a file counts as removed
// only when it has been gone for a while.
func (a *Agent) seen(ctx context.Context, done func() bool) *enforcer.Denial {
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for {
		err := a.watcher.Sync(ctx)
		if err == nil && (done == nil || done()) {
			return nil
		}
		if err == nil {
			select {
			case <-again.C:
				continue
			case <-ctx.Done():
			}
		}
		return &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the licence folder was changed, but has not been read again in time",
			Hint:   "`usher status` shows what is in force"}
	}
}

// fileName makes a document's file name from its licence's id, or is the one file that counts where license.path is a
// file.
func (a *Agent) fileName(l *enforcer.License) string {
	if name := a.singleFile(); name != "" {
		return name
	}
	id := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		default:
			return '-'
		}
	}, l.ID)
	if id = strings.Trim(id, "-"); id == "" {
		id = "licence"
	}
	return id[:min(len(id), 100)] + ".lic"
}

// singleFile returns the name of the licence file where license.path looks like one: it is not a folder, and has an
// extension.
func (a *Agent) singleFile() string {
	path := a.licensePath()
	if isFile(path) {
		return filepath.Base(path)
	}
	return ""
}

func judgedAs(v *enforcer.Verdict, name string) enforcer.Judged {
	if v != nil {
		for _, j := range v.Licenses {
			if j.Document == name {
				return j
			}
		}
	}
	return enforcer.Judged{Document: name, Code: enforcer.NotFound, Reason: "the document is not in the licence folder"}
}

// changes says in sentences what a verdict changes: "streams 8 → 12".
func changes(before, after *enforcer.Verdict) []string {
	if before == nil {
		before = &enforcer.Verdict{State: enforcer.StateMissing, Code: enforcer.NotFound}
	}
	out := []string{}
	if before.Code != after.Code {
		out = append(out, fmt.Sprintf("verdict %s → %s", before.Code, after.Code))
	}
	limits := func(v *enforcer.Verdict) map[string]string {
		m := map[string]string{}
		for n, g := range v.Pools {
			m[n] = g.Limit.String()
		}
		for n, g := range v.Meters {
			m[n] = g.Limit.String()
		}
		for n, f := range v.Features {
			switch f.Kind {
			case enforcer.KindBool:
				m["feature "+n] = map[bool]string{true: "on", false: "off"}[f.Bool]
			case enforcer.KindNumber:
				m["feature "+n] = strings.TrimSpace(fmt.Sprint(f.Number, " ", f.Unit))
			default:
				m["feature "+n] = f.Text
			}
		}
		return m
	}
	was, is := limits(before), limits(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		w, had := was[n]
		i, has := is[n]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s %s (new)", n, i))
		case !has:
			out = append(out, fmt.Sprintf("%s %s → none", n, w))
		case w != i:
			out = append(out, fmt.Sprintf("%s %s → %s", n, w, i))
		}
	}
	if !before.TerminatesAt.Equal(after.TerminatesAt) {
		until := "with no end"
		if !after.TerminatesAt.IsZero() {
			until = "until " + after.TerminatesAt.UTC().Format("2006-01-02")
		}
		out = append(out, until)
	}
	return out
}
