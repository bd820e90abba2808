package elastic

import "testing"

// An end of 0 milliseconds is the beginning of 1970, and no licence for ever.
func TestStatedZero(t *testing.T) {
	f := &fields{}
	f.uid.s, f.typ.s, f.issue, f.expiry = "u", "platinum", number{1_700_000_000_000, true}, number{0, true}
	if l := f.license(KindStack, &blob{version: 5}); l.Expires.IsZero() || l.Expires.Year() != 1970 {
		t.Errorf("it ends at %v", l.Expires)
	}
}
