package shares

import "testing"

// A check-out that is asked again under its token asks for what it asked for then, and says what of it is needed now.
func TestTokenSaysWhatIsNeeded(t *testing.T) {
	p := &Pool{total: 40}
	for _, c := range []struct{ step, want Step }{
		{Step{CheckOut, "", 3, 0}, Step{CheckOut, "", 3, 0}},
		{Step{CheckOut, "", 1, 1}, Step{CheckOut, "", 3, 3}},
		{Step{CheckOut, "", 2, 1}, Step{CheckOut, "", 3, 2}},
		{Step{CheckOut, "", 5, 0}, Step{CheckOut, "", 3, 0}},
	} {
		got := c.step
		if p.openToken(&got); got != c.want {
			t.Errorf("%+v is asked for as %+v, want %+v", c.step, got, c.want)
		}
	}
}
