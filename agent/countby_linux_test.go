package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// countedSteps are acquires from a pool of two slots, by its count_by.
var countedSteps = map[string][]struct {
	user    uint32
	display string
	inUse   int64 // after the acquire; 0: it is denied
}{
	"user+host+label:display": { // DUP_GROUP=UHD
		{somebody, ":0", 1}, {somebody, ":0", 1}, {somebody, ":1", 2}, {somebody + 1, ":0", 0}, {somebody, ":2", 0},
		{somebody, ":1", 2}},
	"user+host/2": { // share=uh:2
		{somebody, "", 1}, {somebody, "a", 1}, {somebody, "b", 2}, {somebody + 1, "", 0}, {somebody, "c", 2},
		{somebody, "d", 0}},
}

// Leases count as the licence says, by several words, a label and the most leases in one use, as FlexNet's DUP_GROUP
// and RLM's share have it: in what is granted and denied, in what the pool says, and after a crash as before.
func TestCombinedCountBy(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	for by, steps := range countedSteps {
		t.Run(strings.ReplaceAll(by, "/", " most "), func(t *testing.T) {
			c := openCrashing(t, 2, func(u *usher.Claims) {
				p := u.Pools["streams"]
				p.CountBy = by
				u.Pools["streams"] = p
			})
			c.openFolders(t)
			var ids []string
			inUse := func() int64 {
				t.Helper()
				p, err := c.Pool(t.Context(), "streams")
				if err != nil || p.CountBy != by {
					t.Fatalf("the pool is %+v, %v", p, err)
				}
				return p.InUse
			}
			for i, s := range steps {
				if i == len(steps)/2 { // between two decisions
					before := inUse()
					if c.kill(); i%2 != 0 {
						c.run()
						c.terminate()
					}
					c.run()
					c.openFolders(t)
					if got := inUse(); got != before {
						t.Errorf("after a crash %d slots are in use, before it %d", got, before)
					}
				}
				got := c.as(s.user, "POST", "/v1/leases", fmt.Sprintf(
					`{"pool":"streams","lifetime":"held","labels":{"display":%q}}`, s.display))
				if s.inUse == 0 {
					expect(t, got, "409 ", `"code":"no_slots"`)
					continue
				}
				expect(t, got, "201 ")
				var l wire.Lease
				if err := json.Unmarshal([]byte(strings.TrimPrefix(got, "201 ")), &l); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, l.ID)
				if got := inUse(); got != s.inUse {
					t.Errorf("after acquire %d %d slots are in use, want %d", i+1, got, s.inUse)
				}
			}
			c.terminate()
			c.run()
			if got := inUse(); got != 2 {
				t.Errorf("after a restart %d slots are in use, want 2", got)
			}
			for i, id := range ids { // a use is over with its last lease
				if err := c.Release(t.Context(), id, true); err != nil {
					t.Fatal(err)
				}
				if got := inUse(); (got == 0) != (i == len(ids)-1) {
					t.Errorf("after release %d of %d %d slots are in use", i+1, len(ids), got)
				}
			}
		})
	}
}
