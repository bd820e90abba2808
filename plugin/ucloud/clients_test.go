package ucloud_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/ucloud"
)

// strict reads a licence as the older clients do: a key without a default must be there, a word must be one of its
// kind, and a number is whole. Keys that it does not know are ignored.
type strict struct{ t testing.TB }

func (s strict) object(v any, keys ...string) map[string]any {
	s.t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		s.t.Fatalf("%v is no object", v)
	}
	for _, k := range keys {
		if _, ok := m[k]; !ok {
			s.t.Errorf("%v lacks %s", m, k)
		}
	}
	return m
}

func (s strict) text(v any) string {
	s.t.Helper()
	text, ok := v.(string)
	if !ok {
		s.t.Errorf("%v is no text", v)
	}
	return text
}

func (s strict) whole(v any) {
	s.t.Helper()
	n, ok := v.(json.Number)
	if _, err := n.Int64(); !ok || err != nil || strings.ContainsAny(n.String(), ".eE") {
		s.t.Errorf("%v is no whole number", v)
	}
}

func (s strict) list(v any) []any {
	s.t.Helper()
	l, ok := v.([]any)
	if !ok {
		s.t.Errorf("%v is no list", v)
	}
	return l
}

func (s strict) word(v any, words ...string) {
	s.t.Helper()
	if text := s.text(v); !slices.Contains(words, text) {
		s.t.Errorf("%q is none of %v", text, words)
	}
}

func (s strict) decode(text string) any {
	s.t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s strict) product(v any) {
	s.t.Helper()
	p := s.object(v, "balance", "name", "pricePerUnit", "category", "description", "priority", "tags", "version",
		"freeToUse", "allowAllocationRequestsFrom", "unitOfPrice", "chargeType", "hiddenInGrantApplications",
		"productType", "maxUsableBalance")
	s.word(p["productType"], "LICENSE")
	s.word(p["allowAllocationRequestsFrom"], "ALL", "PERSONAL", "PROJECT")
	s.word(p["chargeType"], "ABSOLUTE", "DIFFERENTIAL_QUOTA")
	for _, n := range []string{"pricePerUnit", "priority", "version"} {
		s.whole(p[n])
	}
	c := s.object(p["category"], "name", "provider")
	s.text(c["name"])
	s.list(p["tags"])
}

func (s strict) license(v any) {
	s.t.Helper()
	l := s.object(v, "id", "specification", "owner", "createdAt", "status", "updates", "permissions")
	s.text(l["id"])
	s.whole(l["createdAt"])
	p := s.object(s.object(l["specification"], "product")["product"], "id", "category", "provider")
	s.text(p["id"])
	s.text(s.object(l["owner"], "createdBy", "project")["createdBy"])
	status := s.object(l["status"], "state", "resolvedSupport", "resolvedProduct", "boundTo")
	s.word(status["state"], "PREPARING", "READY", "UNAVAILABLE")
	for _, job := range s.list(status["boundTo"]) {
		s.text(job)
	}
	if status["resolvedProduct"] != nil {
		s.product(status["resolvedProduct"])
	}
	if status["resolvedSupport"] != nil {
		r := s.object(status["resolvedSupport"], "product", "support")
		s.product(r["product"])
		s.object(r["support"], "product", "maintenance")
	}
	for _, u := range s.list(l["updates"]) {
		m := s.object(u, "timestamp", "state", "status", "binding")
		s.whole(m["timestamp"])
		if m["binding"] != nil {
			b := s.object(m["binding"], "kind", "job")
			s.word(b["kind"], "BIND", "UNBIND")
			s.text(b["job"])
		}
	}
	if l["permissions"] != nil {
		p := s.object(l["permissions"], "myself", "others")
		for _, w := range s.list(p["myself"]) {
			s.word(w, "READ", "EDIT", "ADMIN", "PROVIDER")
		}
		s.list(p["others"])
	}
}

// lenient reads a licence as the newer clients do: what is missing or null is empty, and a wrong type breaks it all.
type lenient struct {
	ID            string
	Specification struct {
		Product struct{ ID, Category, Provider string }
		Labels  map[string]string
	}
	Owner     struct{ CreatedBy, Project string }
	CreatedAt int64
	Status    struct {
		State           string
		BoundTo         []string
		ResolvedProduct struct {
			Name     string
			Category struct{ Name, Provider string }
			Price    int64
		}
		ResolvedSupport struct{ Support struct{ Features []string } }
	}
	Updates     []struct{ Timestamp int64 }
	Permissions struct {
		Myself []string
		Others []struct {
			Entity      struct{ Type, Username, ProjectID, Group string }
			Permissions []string
		}
	}
}

// Clients of both generations read every answer: each call, with and without flags.
func TestDialectClients(t *testing.T) {
	t.Parallel()
	c := newCounter(t, 2, ucloud.Settings{})
	s := strict{t}
	responses := func(answer string, n int) []any {
		list := s.list(s.object(s.decode(answer), "responses")["responses"])
		if len(list) != n {
			t.Errorf("%s has %d responses, and not %d", answer, len(list), n)
		}
		return list
	}
	made := responses(c.send(200, "POST", "/api/licenses", `{"items":[{"product":{"id":"abaqus","category":"abaqus",`+
		`"provider":"example"}},{"product":{"id":"abaqus","category":"abaqus","provider":"example"},`+
		`"labels":{"a":"b"}}]}`), 2)
	id := s.text(s.object(made[0], "id")["id"])
	c.bind(200, id, "BIND", "7")
	c.bind(200, id, "UNBIND", "7")
	c.bind(200, id, "BIND", "8")
	responses(c.send(200, "POST", "/api/licenses/updateAcl", `{"items":[{"id":"1","added":[{"entity":{"type":`+
		`"project_group","projectId":"p","group":"g"},"permissions":["READ"]}],"deleted":null}]}`), 1)
	c.send(200, "POST", "/api/licenses/updateLabels", `{"items":[{"id":"2","labels":{"c":"d"}}]}`)
	if got := c.listed(c.send(200, "GET", "/api/licenses/browse?filterLabels.c=d", "")); got != "2" {
		t.Errorf("by label: %s", got)
	}
	for _, flags := range []string{"",
		"&includeOthers=true&includeUpdates=true&includeSupport=true&includeProduct=true",
		"&includeOthers=false&includeUpdates=true&includeSupport=false&includeProduct=true"} {
		one := c.send(200, "GET", "/api/licenses/retrieve?id="+id+flags, "")
		s.license(s.decode(one))
		var l lenient
		if err := json.Unmarshal([]byte(one), &l); err != nil || l.ID != id || fmt.Sprint(l.Status.BoundTo) != "[8]" ||
			l.CreatedAt == 0 || l.Specification.Product.ID != "abaqus" {
			t.Errorf("%+v, %v", l, err)
		}
		for _, answer := range []string{c.send(200, "GET", "/api/licenses/browse?itemsPerPage=10"+flags, ""),
			c.send(200, "POST", "/api/licenses/search", `{"query":"","itemsPerPage":10}`)} {
			page := s.object(s.decode(answer), "itemsPerPage", "items", "next")
			s.whole(page["itemsPerPage"])
			for _, l := range s.list(page["items"]) {
				s.license(l)
			}
			var all struct {
				Items []lenient
				Next  *string
			}
			if err := json.Unmarshal([]byte(answer), &all); err != nil || len(all.Items) != 2 || all.Next != nil {
				t.Errorf("%+v, %v", all, err)
			}
		}
	}
	by := s.object(s.object(s.decode(c.send(200, "GET", "/api/licenses/retrieveProducts", "")),
		"productsByProvider")["productsByProvider"], "example")
	for _, p := range s.list(by["example"]) {
		s.product(s.object(p, "product", "support")["product"])
	}
	responses(c.send(200, "DELETE", "/api/licenses", `{"items":[{"id":"1"},{"id":"2"}]}`), 2)
}
