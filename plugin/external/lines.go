package external

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// Bounds of what a plugin may log.
const (
	maxLineLogged  = 1024 // bytes; the rest of a longer line is dropped
	linesPerSecond = 10
	linesAtOnce    = 50
)

// lines logs a plugin's output line by line, bounded in size, rate and memory. It counts what exceeds the bounds.
type lines struct {
	log *slog.Logger

	mu      sync.Mutex // guards all below: standard error and the two streams of go-plugin write at once
	line    []byte
	cut     bool
	limit   *rate.Limiter
	dropped int
}

func newLines(log *slog.Logger) *lines {
	return &lines{log: log, limit: rate.NewLimiter(linesPerSecond, linesAtOnce)}
}

// Write never fails.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		room := max(0, maxLineLogged-len(l.line))
		l.cut = l.cut || len(part) > room
		l.line = append(l.line, part[:min(len(part), room)]...)
		if ended {
			l.emit()
		}
		rest = after
	}
	return len(p), nil
}

// emit logs the line, if there is room for one. l.mu is held.
func (l *lines) emit() {
	text := strings.TrimSpace(strings.ToValidUTF8(string(l.line), "\uFFFD"))
	if l.cut {
		text += "…"
	}
	l.line, l.cut = l.line[:0], false
	if text == "" {
		return
	}
	if !l.limit.Allow() {
		l.dropped++
		return
	}
	if l.dropped > 0 {
		l.log.Warn("the plugin writes too much", "lines_dropped", l.dropped)
		l.dropped = 0
	}
	l.log.Info("the plugin says", "text", text)
}

// end logs how many lines were dropped at the end.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		l.log.Warn("the plugin wrote too much", "lines_dropped", l.dropped)
		l.dropped = 0
	}
}
