package journal_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/agent/journal"
)

// model is the list that a journal must remember. After any crash the journal has the first records of it, and at least
// those whose commit returned.
type model struct {
	t        *rapid.T
	c        journal.Config
	d        *disk
	j        *journal.Journal
	appended []string
	doubtful []string // of an Append that failed and could not be undone
	acked    int
	last     journal.Commit
	n        int
}

func TestNothingAcknowledgedIsLost(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%v", sync), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				dir, err := os.MkdirTemp(t.TempDir(), "")
				if err != nil {
					rt.Fatal(err)
				}
				m := &model{t: rt, d: &disk{}}
				m.c = journal.Config{Dir: dir, Name: "j", Sync: sync, File: m.d.open}
				m.reopen()
				rt.Repeat(map[string]func(*rapid.T){
					"append":  func(t *rapid.T) { m.t = t; m.append() },
					"wait":    func(t *rapid.T) { m.t = t; m.wait() },
					"compact": func(t *rapid.T) { m.t = t; m.compact() },
					"fault":   func(t *rapid.T) { m.t = t; m.fault() },
					"mend":    func(t *rapid.T) { m.d.set(nil) },
					"kill":    func(t *rapid.T) { m.t = t; m.stop(); m.reopen() },
					"crash":   func(t *rapid.T) { m.t = t; m.crash(); m.reopen() },
				})
				m.crash()
				m.reopen()
				m.stop()
			})
		})
	}
}

func (m *model) append() {
	var batch [][]byte
	var names []string
	for range rapid.IntRange(1, 3).Draw(m.t, "records") {
		m.n++
		r := fmt.Sprintf("record %d %s", m.n,
			strings.Repeat("x", rapid.SampledFrom([]int{0, 40, 500, 1200}).Draw(m.t, "size")))
		batch, names = append(batch, []byte(r)), append(names, r)
	}
	c, err := m.j.Append(batch...)
	if err == nil {
		m.appended, m.last = append(m.appended, names...), c
		if !m.c.Sync {
			m.acked = len(m.appended)
		}
	} else if m.doubtful == nil && strings.Contains(err.Error(), "cannot be cut") {
		m.doubtful = names // every later one fails, so that nothing can come to stand behind it
	}
}

func (m *model) wait() {
	if m.last.Wait(m.t.Context()) == nil {
		m.acked = len(m.appended)
	}
}

// compact takes as its snapshot all that was appended, some of it while it writes the snapshot.
func (m *model) compact() {
	from, state := m.j.Mark(), slices.Clone(m.appended)
	during := rapid.IntRange(0, 2).Draw(m.t, "meanwhile")
	_ = m.j.CompactFrom(from, func(write func([]byte) error) error {
		for range during {
			m.append()
		}
		for _, r := range state {
			if err := write([]byte(r)); err != nil {
				return err
			}
		}
		return nil
	})
}

// fault makes some operations fail, from some moment on.
func (m *model) fault() {
	errs := map[string]error{}
	for _, op := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"open", "write", "truncate", "sync"}), 1, 4,
		rapid.ID).Draw(m.t, "ops") {
		errs[op] = rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(m.t, "error")
	}
	after := rapid.IntRange(0, 6).Draw(m.t, "after")
	part := rapid.SampledFrom([]float64{0, 0.3, 0.9, 1}).Draw(m.t, "part")
	m.d.set(func(op string) (float64, error) {
		if after--; after >= 0 {
			return 0, nil
		}
		return part, errs[op]
	})
}

// stop ends the process: all that was written stays.
func (m *model) stop() { m.j.Close() }

// crash ends the host: only synced bytes stay for certain. A journal without fsync promises nothing there, so that only
// its process ends.
func (m *model) crash() {
	if m.c.Sync {
		seed := rapid.Uint64().Draw(m.t, "seed")
		m.d.crash(m.t, rand.New(rand.NewPCG(seed, 1)))
	}
	m.j.Close()
}

func (m *model) reopen() {
	if rapid.IntRange(0, 3).Draw(m.t, "fault at opening") == 0 && m.n > 0 {
		m.fault()
		if j, _, err := journal.Open(m.c, func([]byte) error { return nil }); err == nil {
			j.Close()
		}
	}
	m.d.set(nil)
	var got []string
	j, r, err := journal.Open(m.c, collect(&got))
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	m.j = j
	want := append(slices.Clone(m.appended), m.doubtful...)
	if len(got) < m.acked || len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		m.t.Fatalf("%d acknowledged, %d appended, and replayed (%+v) %d:\n%.20q\nwant the first of\n%.20q", m.acked,
			len(m.appended), r, len(got), got, want)
	}
	m.appended, m.acked, m.doubtful, m.last = got, len(got), nil, journal.Commit{}
}
