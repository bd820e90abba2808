package ucloud_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// A licence is written with every key of the older generation, nulls included.
func TestDialectShape(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	at := noon.Add(24 * time.Hour).UnixMilli()
	want := fmt.Sprintf(`{"id":"1","specification":{"product":{"id":"abaqus","category":"abaqus",`+
		`"provider":"example"},"labels":{}},"owner":{"createdBy":"local:uid-1000","project":null},"createdAt":%d,`+
		`"status":{"state":"READY","resolvedSupport":null,"resolvedProduct":null,"boundTo":[]},"updates":[],`+
		`"permissions":null}`, at)
	if got := c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	all := c.send(200, "GET", "//api/licenses/retrieve?id="+id+
		"&includeOthers=true&includeUpdates=true&includeSupport=true&includeProduct=true", "")
	c.says(all, `"permissions":{"myself":["ADMIN","READ","EDIT"],"others":[]}`,
		fmt.Sprintf(`"updates":[{"timestamp":%d,"state":"READY","status":"License is ready for use","binding":null}]`,
			at),
		`"resolvedSupport":{"product":{"balance":null,"name":"abaqus","pricePerUnit":1,"category":{"name":"abaqus",`+
			`"provider":"example"}`, `"support":{"product":{"id":"abaqus","category":"abaqus","provider":"example"},`+
			`"maintenance":null}`, `"chargeType":"ABSOLUTE"`, `"productType":"LICENSE"`, `"freeToUse":true`)
	page := c.send(200, "GET", "/api/licenses/browse?itemsPerPage=50", "")
	c.says(page, `{"itemsPerPage":50,"items":[`, `"next":null}`)
	c.says(c.send(200, "GET", "/api/licenses/retrieveProducts", ""), `{"productsByProvider":{"example":[{"product":`)
	if got := c.send(200, "POST", "/api/licenses/init", "{}"); got != "{}" {
		t.Errorf("init: %s", got)
	}
	if got := c.send(200, "DELETE", "/api/licenses", `{"items":[{"id":"1"}]}`); got != `{"responses":[{}]}` {
		t.Errorf("delete: %s", got)
	}
	c.says(c.send(404, "GET", "/api/licenses/retrieve?id=1", ""),
		`{"statusCode":404,"why":"Not found","errorCode":null}`)
}

// Jobs hold slots up to the limit. The list of jobs is that of the leases, also after a crash, and the same binding
// twice is one.
func TestDialectBinds(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	c.bind(200, id, "BIND", "42")
	c.bind(200, id, "BIND", "42")
	c.bind(200, id, "BIND", "43")
	c.inUse(2)
	c.says(c.bind(402, id, "BIND", "44"), `"errorCode":"NOT_ENOUGH_LICENSE_CREDITS"`)
	c.inUse(2)
	c.desk.Restart()
	c.restart()
	c.says(c.send(200, "GET", "/api/licenses/retrieve?includeUpdates=true&id="+id, ""), `"boundTo":["42","43"]`,
		`"binding":{"kind":"BIND","job":"42"}`)
	c.bind(200, id, "UNBIND", "42")
	c.bind(200, id, "UNBIND", "42")
	c.inUse(1)
	c.says(c.send(200, "GET", "/api/licenses/browse", ""), `"boundTo":["43"]`)
	for _, job := range []string{"", "0", "-1", "a", "01", "99999999999999999999", "7f0e2e5e-1"} {
		c.bind(400, id, "BIND", job)
	}
	c.bind(400, id, "ADD", "1")
	c.says(c.bind(404, "77", "BIND", "1"), "Not found or permission denied (77)")
	// Of a batch that is refused nothing stays.
	c.send(402, "POST", "/api/licenses/control/update", `{"items":[`+
		`{"id":"1","update":{"status":"x","binding":{"kind":"UNBIND","job":"43"}}},`+
		`{"id":"1","update":{"binding":{"kind":"BIND","job":"50"}}},`+
		`{"id":"1","update":{"binding":{"kind":"BIND","job":"51"}}}]}`)
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"boundTo":["43"]`)
	c.inUse(1)
	c.send(200, "DELETE", "/api/licenses", `{"items":[{"id":"1"}]}`)
	c.inUse(0)
}

// A crash at any step leaves no slot that the list of jobs does not show.
func TestDialectCrashes(t *testing.T) {
	t.Parallel()
	for _, step := range []plugintest.Step{plugintest.StepAcquired, plugintest.StepStored} {
		c := newCounter(t, 2, ucloud.Settings{})
		id := c.create()
		c.desk.DieAt = step
		func() {
			defer func() {
				if p := recover(); p == nil {
					t.Errorf("%s: the agent did not die", step)
				}
			}()
			c.bind(200, id, "BIND", "42")
		}()
		c.desk.Restart()
		c.restart()
		shown := strings.Contains(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"boundTo":["42"]`)
		if held := c.desk.InUse("abaqus") == 1; held != shown {
			t.Errorf("%s: held %t, shown %t", step, held, shown)
		}
		c.bind(200, id, "BIND", "42")
		c.inUse(1)
		c.bind(200, id, "UNBIND", "42")
		c.inUse(0)
	}
}

// An expired licence shows as unavailable, binds no job in the API's own words, and lets jobs go.
func TestDialectExpiry(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	c.bind(200, id, "BIND", "42")
	l := license(t, 2, func(c *ucloud.Claims) { c.Expires = noon.Add(25 * time.Hour).Unix() })
	c.desk.Judge(l)
	c.desk.Pass(2 * time.Hour)
	c.desk.Judge(l)
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id="+id, ""), `"state":"UNAVAILABLE"`, `"boundTo":["42"]`)
	c.says(c.bind(400, id, "BIND", "43"), "abaqus with ID '1' is not ready: ", "expired")
	c.bind(200, id, "UNBIND", "42")
	c.says(c.send(402, "POST", "/api/licenses", item), "You are missing allocations for: abaqus", "expired")
	c.inUse(0)
}

// A provider's states are honoured, and kept with the other parts of its updates. Only the provider states them.
func TestDialectStates(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	id := c.create()
	down := `{"items":[{"id":"1","update":{"timestamp":-62135596800000,"state":"UNAVAILABLE","status":"moving"}}]}`
	c.send(403, "POST", "/api/licenses/control/update", down)
	c.as(0, true)
	c.send(400, "POST", "/api/licenses/control/update", strings.Replace(down, "UNAVAILABLE", "GONE", 1))
	if got := c.send(200, "POST", "/api/licenses/control/update", down); got != "{}" {
		t.Errorf("update: %s", got)
	}
	c.as(1000, false)
	at := noon.Add(24 * time.Hour).UnixMilli()
	c.says(c.send(200, "GET", "/api/licenses/retrieve?includeUpdates=true&id="+id, ""), `"state":"UNAVAILABLE"`,
		fmt.Sprintf(`{"timestamp":%d,"state":"UNAVAILABLE","status":"moving","binding":null}`, at))
	c.says(c.bind(400, id, "BIND", "1"), "abaqus with ID '1' is not ready")
}

// Timestamps and nulls as clients of either generation send them do no harm, and what cannot be read is refused.
func TestDialectTimestampsAndNulls(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	c.create()
	for _, update := range []string{`{"status":"x"}`, `{"timestamp":null,"status":null,"binding":null,"state":null}`,
		`{"timestamp":-62135596800000}`, `{"timestamp":0,"unknown":[1]}`} {
		c.send(200, "POST", "/api/licenses/control/update", `{"items":[{"id":"1","update":`+update+`}]}`)
	}
	for _, bad := range []string{`{"items":[{"id":1,"update":{}}]}`,
		`{"items":[{"id":"1","update":{"timestamp":"1"}}]}`,
		`{"items":[{"id":"1","update":{"timestamp":1.5}}]}`, `{"items":{}}`, `[]`, `null`} {
		c.says(c.send(400, "POST", "/api/licenses/control/update", bad), "statusCode", "why")
	}
	var l struct{ Updates []map[string]any }
	if err := json.Unmarshal([]byte(c.send(200, "GET", "/api/licenses/retrieve?includeUpdates=true&id=1", "")),
		&l); err != nil {
		t.Fatal(err)
	}
	for _, u := range l.Updates {
		if at, ok := u["timestamp"].(float64); !ok || at <= 0 {
			t.Errorf("the timestamp is %v", u["timestamp"])
		}
	}
	c.send(200, "POST", "/api/licenses/updateAcl", `{"items":[{"id":"1","added":null,"deleted":null}]}`)
	c.send(200, "POST", "/api/licenses", `{"items":[{"product":{"id":"abaqus","category":"abaqus",`+
		`"provider":"example"},"labels":null}]}`)
	c.send(400, "POST", "/api/licenses", `{"items":[{"product":null}]}`)
	c.says(c.send(400, "POST", "/api/licenses", `{"items":[]}`), "Request must not be empty")
	many := strings.Repeat(`{"id":"1"},`, 1001)
	c.send(400, "DELETE", "/api/licenses", `{"items":[`+strings.TrimSuffix(many, ",")+`]}`)
}

// Each flag and filter does what it says, on every call that takes it.
func TestDialectFilters(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	c.as(0, true)
	c.send(200, "POST", "/api/licenses/control/register", `{"items":[{"spec":{"product":{"id":"abaqus",`+
		`"category":"abaqus","provider":"example"}},"providerGeneratedId":"g-1","createdBy":"bob"}]}`)
	c.desk.Pass(time.Second)
	c.create()
	first, second := noon.Add(24*time.Hour).UnixMilli(), noon.Add(24*time.Hour+time.Second).UnixMilli()
	for query, want := range map[string]string{
		"":                       "1,2",
		"filterCreatedBy=bob":    "1",
		"filterCreatedBy=nobody": "",
		fmt.Sprint("filterCreatedAfter=", second):           "2",
		fmt.Sprint("filterCreatedBefore=", first):           "1",
		"filterProvider=example":                            "1,2",
		"filterProvider=other":                              "",
		"filterProductId=abaqus":                            "1,2",
		"filterProductId=x":                                 "",
		"filterProductCategory=abaqus":                      "1,2",
		"filterProductCategory=x":                           "",
		"filterProviderIds=g-0,g-1":                         "1",
		"filterIds=2,7":                                     "2",
		"hideProductId=abaqus":                              "",
		"hideProductCategory=abaqus":                        "",
		"hideProvider=example":                              "",
		"hideProvider=other":                                "1,2",
		"filterCreatedBy=bob&filterIds=2":                   "",
		"sortBy=createdAt&sortDirection=descending":         "2,1",
		"sortDirection=descending":                          "2,1",
		"sortBy=createdBy":                                  "1,2",
		"itemsToSkip=1":                                     "2",
		"filterState=READY&consistency=REQUIRE&whatever=no": "1,2",
	} {
		if got := c.listed(c.send(200, "GET", "/api/licenses/browse?"+query, "")); got != want {
			t.Errorf("%s: %q, and it should be %q", query, got, want)
		}
	}
	c.says(c.send(200, "GET", "/api/licenses/retrieve?id=1", ""), `"providerGeneratedId":"g-1"`)
	c.send(404, "GET", "/api/licenses/retrieve?id=1&filterIds=2", "")
	for _, bad := range []string{"includeOthers=maybe", "filterCreatedAfter=soon", "itemsPerPage=many",
		"itemsToSkip=-1"} {
		c.send(400, "GET", "/api/licenses/browse?"+bad, "")
	}
	for body, want := range map[string]string{`{"query":"aba"}`: "1,2", `{"query":"2"}`: "2", `{"query":"zzz"}`: "",
		`{"query":"","flags":{"filterCreatedBy":"bob"}}`: "1", `{"query":"","filterCreatedBy":"bob"}`: "1",
		`{"query":"ABAQUS","flags":{"includeOthers":true,"filterIds":"2"},"itemsPerPage":10,"next":null}`: "2"} {
		if got := c.listed(c.send(200, "POST", "/api/licenses/search", body)); got != want {
			t.Errorf("%s: %q, and it should be %q", body, got, want)
		}
	}
}

// listed returns the ids of a page.
func (c *counter) listed(page string) string {
	c.t.Helper()
	var p ucloud.Page[ucloud.License]
	if err := json.Unmarshal([]byte(page), &p); err != nil {
		c.t.Fatal(err)
	}
	var ids []string
	for _, l := range p.Items {
		ids = append(ids, l.ID)
	}
	return strings.Join(ids, ",")
}

// A list is read to its end, each licence once, also while licences are deleted. Odd sizes and marks are forgiven.
func TestDialectPages(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	for range 25 {
		c.create()
	}
	for _, q := range []string{"itemsPerPage=10", "itemsPerPage=10&sortBy=createdAt",
		"itemsPerPage=10&sortDirection=desc"} {
		var all []string
		next := ""
		for range 9 {
			var p ucloud.Page[ucloud.License]
			if err := json.Unmarshal([]byte(c.send(200, "GET", "/api/licenses/browse?"+q+next, "")), &p); err != nil {
				t.Fatal(err)
			}
			for _, l := range p.Items {
				all = append(all, l.ID)
			}
			if p.Next == nil {
				break
			}
			next = "&next=" + *p.Next
		}
		slices.Sort(all)
		if n := len(slices.Compact(all)); n != 25 || len(all) != 25 {
			t.Errorf("%s: %d licences, %d of them different", q, len(all), n)
		}
	}
	c.send(200, "DELETE", "/api/licenses", `{"items":[{"id":"3"},{"id":"4"}]}`)
	if got := c.listed(c.send(200, "GET", "/api/licenses/browse?itemsPerPage=10&next=10", "")); !strings.HasPrefix(got,
		"11,12") {
		t.Errorf("after a deletion the next page is %s", got)
	}
	for _, q := range []string{"itemsPerPage=0", "itemsPerPage=7", "itemsPerPage=-1", "itemsPerPage=5000", "next=x"} {
		c.says(c.send(200, "GET", "/api/licenses/browse?"+q, ""), `{"itemsPerPage":50,`, `"id":"1"`)
	}
}

// parts is a desk whose store takes no more at once than the agent's does, and refuses the n-th change.
type parts struct {
	plugin.Desk
	n int
}

func (p *parts) Store() plugin.Store { return &partsStore{p.Desk.Store(), p} }

type partsStore struct {
	plugin.Store
	desk *parts
}

func (s *partsStore) Apply(changes ...plugin.Change) error {
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value)
	}
	if s.desk.n--; s.desk.n == 0 || size > plugin.MaxStoreApply {
		return plugin.ErrStoreFull
	}
	return s.Store.Apply(changes...)
}

// A request of a thousand licences is more than the store takes at once. It succeeds, or nothing of it stays.
func TestDialectLargeBulk(t *testing.T) {
	t.Parallel()
	one := `{"product":{"id":"abaqus","category":"abaqus","provider":"example"},"labels":{"note":"` +
		strings.Repeat("n", 100) + `"}}`
	body := `{"items":[` + strings.TrimSuffix(strings.Repeat(one+",", 1000), ",") + `]}`
	for n, status := range map[int]int{0: 200, 1: 507, 2: 507} {
		c := newCounter(t, 2, ucloud.Settings{})
		c.h = c.dialect.Dialect().Handler(&parts{c.desk, n})
		c.send(status, "POST", "/api/licenses", body)
		made := strings.Count(c.send(200, "GET", "/api/licenses/browse?itemsPerPage=1000", ""), `"createdAt"`)
		if want := map[int]int{200: 1000, 507: 0}[status]; made != want {
			t.Errorf("refused at change %d: %d licences, and not %d", n, made, want)
		}
	}
}
