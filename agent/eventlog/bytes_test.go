package eventlog

import (
	"context"
	"testing"
)

// An event whose texts are no UTF-8, such as the path of a program, breaks no log.
func TestAnyBytesVerify(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l, err := Open(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for _, s := range []string{"caf\xe9", "\xff\xfe", "\ufffd", "\u2028<&>", "\x00\x1b[2J"} {
		l.Note(Event{At: noon, Type: "lease.acquired", Subject: s, Detail: s, Actor: s,
			Fields: map[string]string{"exe": s, s: "x"}})
	}
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var details []string
	if _, err := Verify(f.cfg.Dir, f.pub, func(e Event) { details = append(details, e.Detail) }); err != nil {
		t.Fatal(err)
	}
	if len(details) != 5 || details[0] != `caf\xe9` {
		t.Errorf("the log has %q", details)
	}
}
