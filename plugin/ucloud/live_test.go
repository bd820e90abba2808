package ucloud_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// boundTo is the live list of jobs, also of those whose slots the local API has granted, to whichever user: by the
// label license, or at the first licence of the product. A label that is no job's id is not shown. The list takes no
// right: a caller of the local API is told no server's key, and its lease is not given back.
func TestBoundToShowsEveryLease(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 8, ucloud.Settings{})
	one, two := c.create(), c.create()
	boundTo := func(id string) string {
		t.Helper()
		var l ucloud.License
		if err := json.Unmarshal([]byte(c.send(200, "GET", "/api/licenses/retrieve?id="+id, "")), &l); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(l.Status.BoundTo)
	}
	n := byte(0)
	acquire := func(labels map[string]string) enforcer.LeaseID {
		t.Helper()
		n++
		c.desk.Pass(time.Second)
		d := c.desk.Do(&enforcer.Acquire{ID: enforcer.LeaseID{n}, Caller: enforcer.Caller{UID: 2000}, Pool: "abaqus",
			N:        1,
			Lifetime: enforcer.LifetimeHeld, Labels: labels})
		if d.Denial != nil {
			t.Fatal(d.Denial)
		}
		return d.Lease.ID
	}
	c.bind(200, two, "BIND", "42")
	nine := acquire(map[string]string{"job": "9"})
	acquire(map[string]string{"job": "10", "license": two})
	acquire(map[string]string{"job": "11", "license": "77"})
	acquire(map[string]string{"job": "no job"})
	acquire(map[string]string{"license": two})
	acquire(map[string]string{"job": "42", "license": two}) // the program of a job that is bound
	if got := boundTo(one) + boundTo(two); got != "[9 11][42 10]" {
		t.Errorf("the lists are %s", got)
	}
	c.bind(200, one, "UNBIND", "9")
	if got := boundTo(one); got != "[9 11]" {
		t.Errorf("after an unbind of a job that the local API serves: %s", got)
	}
	c.desk.Do(&enforcer.Release{ID: nine, Caller: enforcer.Caller{UID: 2000}})
	if got := boundTo(one); got != "[11]" {
		t.Errorf("after its release: %s", got)
	}
	c.as(0, true)
	c.send(200, "POST", "/licenses.update", `{"Name":"abaqus","Address":"host","Port":27000,"License":"K"}`)
	c.send(200, "POST", "/api/licenses/updateAcl",
		`{"items":[{"id":"`+two+`","added":[{"entity":{"type":"user","username":`+
			`"local:uid-2000"},"permissions":["READ"]}],"deleted":null}]}`)
	c.as(2000, false)
	c.send(403, "POST", "/licenses.retrieve", `"`+two+`"`)
	c.as(1000, false)
	c.send(200, "DELETE", "/api/licenses", `{"items":[{"id":"`+one+`"}]}`)
	if got := boundTo(two); got != "[42 10 11]" {
		t.Errorf("after the first licence is gone: %s", got)
	}
	c.inUse(6)
}
