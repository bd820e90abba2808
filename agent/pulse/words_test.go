package pulse

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// TestRefusalKeepsItsWords: what the vendor said with a refusal stands when the network dies afterwards, and the
// failure of the network is told beside it, since when the first call failed.
func TestRefusalKeepsItsWords(t *testing.T) {
	d := Duties{CheckIn: enforcer.Period{Every: 30 * 24 * time.Hour}, Can: every}
	h, half := Uptime{BootID: "b"}, func() float64 { return 0.5 }
	refused := &plugin.Error{Class: plugin.Refused, Code: enforcer.Revoked, Reason: "charged back; call +49 30 1234"}
	at := func(n int) time.Time { return y2k.Add(time.Duration(n) * time.Hour) }
	s := State{}.Succeeded(d, CheckIn, &plugin.Reply{}, at(0), h, half).Failed(d, refused, at(1), h, half)
	for n := 2; n < 5; n++ {
		s = s.Failed(d, &plugin.Error{Class: plugin.Transient, Reason: "no route to host", Hint: "mend the network"},
			at(n), h, half)
	}
	f := s.Facts(at(5), time.Time{}, h)
	if f.Refused != enforcer.Revoked || f.RefusedReason != refused.Reason {
		t.Errorf("refused %s: %q, want the vendor's words", f.Refused, f.RefusedReason)
	}
	if want := (enforcer.Failing{Class: "transient", Reason: "no route to host", Hint: "mend the network",
		Since: at(1)}); f.Failing != want {
		t.Errorf("failing %+v, want %+v", f.Failing, want)
	}
	// A record of a former version has the words as the reason.
	old := State{Code: enforcer.Revoked, Class: plugin.Refused, Reason: refused.Reason, Called: at(1)}
	if f := old.Failed(d, plugin.Transiently("down"), at(2), h, half).Facts(at(3), time.Time{}, h); f.RefusedReason !=
		refused.Reason {
		t.Errorf("of a former version's record: %q", f.RefusedReason)
	}
	if f := s.Succeeded(d, CheckIn, &plugin.Reply{}, at(6), h, half).Facts(at(6), time.Time{}, h); f.Refused != "" ||
		f.RefusedReason != "" || f.Failing != (enforcer.Failing{}) {
		t.Errorf("after a good answer: %+v", f)
	}
}
