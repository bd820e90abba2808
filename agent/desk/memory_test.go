package desk

import (
	"fmt"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// forced counts the collections that somebody asked for.
func forced() uint64 {
	s := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// A licence of very many pools has left garbage behind, which is given back once: when it comes, and when it goes.
func TestMemoryOfManyPoolsIsGivenBack(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	licence := func(pools int) {
		v := &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, Pools: map[string]enforcer.PoolGrant{}}
		for i := range pools {
			name := fmt.Sprint("p", i)
			v.Pools[name] = enforcer.PoolGrant{Name: name, Limit: 1, Budget: 1}
		}
		d.SetVerdict(v, 0)
	}
	for _, step := range []struct {
		pools int
		given bool
	}{{10, false}, {manyPools + 10, true}, {manyPools + 10, false}, {2*manyPools + 9, false}, {2*manyPools + 10, true},
		{manyPools + 11, false}, {0, true}, {0, false}} {
		licence(step.pools)
		was, pooled := forced(), d.pooled
		d.keepMemory()
		if given := d.pooled != pooled; given != step.given {
			t.Fatalf("%d pools: memory is given back: %v", step.pools, given)
		}
		if step.given && !polled(func() bool { return forced() > was }) {
			t.Fatalf("%d pools: nothing is collected", step.pools)
		}
	}
}
