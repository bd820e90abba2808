package journal_test

import (
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

func BenchmarkAppend(b *testing.B) {
	record := make([]byte, 300)
	j, _, _ := open(b, journal.Config{Dir: b.TempDir(), Name: "j"})
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Append(record); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendSync has 64 goroutines a processor append and wait for the disk.
func BenchmarkAppendSync(b *testing.B) {
	record := make([]byte, 300)
	j, _, _ := open(b, journal.Config{Dir: b.TempDir(), Name: "j", Sync: true})
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			c, err := j.Append(record)
			if err == nil {
				err = c.Wait(b.Context())
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
