package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// A user that holds nothing has its list made in the same steps, however many leases others hold.
func TestListOfNothing(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: enforcer.Unlimited,
			Budget: enforcer.Unlimited, Most: enforcer.Unlimited}}}, 0)
	list := func() {
		d.List(&enforcer.User{UID: 1}, func(some []*enforcer.Lease) bool {
			t.Errorf("%d leases of others are listed", len(some))
			return false
		})
	}
	took := func() (float64, time.Duration) {
		start := time.Now()
		allocs := testing.AllocsPerRun(1000, list)
		return allocs, time.Since(start) / 1000
	}
	few, quick := took()
	for range 50_000 {
		d.take(t, 2)
	}
	many, slow := took()
	t.Logf("%v with no leases, %v with 50,000", quick, slow)
	if few != many {
		t.Errorf("a list of nothing allocates %v times with no leases, and %v times with 50,000", few, many)
	}
}
