package keygen

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// versions are the API versions that requests may name.
var versions = []string{"1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8"}

// version is the API version of a request that names none.
const version = "1.8"

// askedVersion returns the API version that a request names. ok is false if there is no such version.
func askedVersion(r *http.Request) (v string, ok bool) {
	v = r.Header.Get("Keygen-Version")
	if v == "" {
		return version, true
	}
	v = strings.TrimPrefix(v, "v")
	return v, slices.Contains(versions, v)
}

// until reports whether the answer has the form of an API version 1.minor or an earlier one.
func (x *request) until(minor int) bool {
	v, ok := askedVersion(x.r)
	if !ok {
		return false
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(v, "1."))
	return n <= minor
}

// headerName returns the name of a header that names a resource. Until version 1.3 it ends in -Id.
func (x *request) headerName(name string) string {
	if x.until(3) {
		return name + "-Id"
	}
	return name
}

// media returns the answer's media type: JSON:API, or plain JSON for a caller that accepts that alone.
func (x *request) media() string {
	for part := range strings.SplitSeq(strings.Join(x.r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/json":
			return "application/json; charset=utf-8"
		case "application/vnd.api+json", "*/*", "application/*":
			return jsonAPI
		}
	}
	return jsonAPI
}

const jsonAPI = "application/vnd.api+json; charset=utf-8"

// shaped returns an answer in the form of the API version that the request names. created says that the answer is to a
// request that made the resource.
func (x *request) shaped(doc object, created bool) object {
	doc = maps.Clone(doc)
	switch data := doc["data"].(type) {
	case object:
		doc["data"] = x.resourceOf(data, created)
	case []object:
		doc["data"] = x.resourcesOf(data)
	}
	meta := asObject(doc["meta"])
	if code, validated := meta["code"].(string); validated && x.until(1) {
		meta = maps.Clone(meta)
		delete(meta, "code")
		meta["constant"] = code
		if slices.Contains(overageCodes, Code(code)) {
			meta["valid"] = false
		}
		doc["meta"] = meta
	}
	return doc
}

// overageCodes are the codes that go with a valid licence within its overage.
var overageCodes = []Code{CodeTooManyUsers, CodeTooManyMachines, CodeTooManyCores, CodeTooMuchMemory, CodeTooMuchDisk,
	CodeTooManyProcesses}

func (x *request) resourcesOf(all []object) []object {
	out := make([]object, len(all))
	for i, o := range all {
		out[i] = x.resourceOf(o, false)
	}
	return out
}

// resourceOf returns a resource in the form of the API version that the request names. It changes nothing of the
// argument. What Keygen wrote in the form of an earlier version gets the names of the present one first.
func (x *request) resourceOf(o object, created bool) object {
	o = maps.Clone(o)
	attributes, related := maps.Clone(asObject(o["attributes"])), maps.Clone(asObject(o["relationships"]))
	for _, in := range []object{attributes, related} {
		for _, r := range renamed {
			switch {
			case r.of != o["type"]:
			case x.until(r.until):
				rename(in, r.now, r.before)
			default:
				rename(in, r.before, r.now)
			}
		}
	}
	for name, r := range related {
		if r := asObject(r); r != nil {
			related[name] = linked(r, x.at(textOf(o["type"]), textOf(o["id"]), name))
		}
	}
	switch o["type"] {
	case "licenses":
		if user := asObject(related["user"]); x.until(5) && user != nil {
			user = maps.Clone(user)
			user["links"] = object{"related": x.at("licenses", textOf(o["id"]), "user")}
			related["user"] = user
		}
	case "machines":
		if x.until(5) && related != nil {
			related["user"] = x.relate("users", x.about.related("owner"), "machines", textOf(o["id"]), "user")
		}
		if created && x.until(2) && attributes["heartbeatStatus"] == string(Alive) {
			attributes["heartbeatStatus"] = string(NotStarted)
		}
	case "policies":
		if x.until(1) && attributes != nil {
			attributes["concurrent"] = attributes["overageStrategy"] != "NO_OVERAGE"
		} else {
			delete(attributes, "concurrent")
		}
	}
	if x.until(4) && attributes["metadata"] != nil {
		if b, err := json.Marshal(attributes["metadata"]); err == nil {
			attributes["metadata"] = snaked(b, false)
		}
	}
	if attributes != nil {
		o["attributes"] = attributes
	}
	if related != nil {
		o["relationships"] = related
	}
	return o
}

// renamed are the members that had another name until an API version.
var renamed = []struct {
	of, before, now string
	until           int
}{
	{"licenses", "user", "owner", 5},
	{"policies", "leasingStrategy", "processLeasingStrategy", 6},
	{"policies", "fingerprintUniquenessStrategy", "machineUniquenessStrategy", 3},
	{"policies", "fingerprintMatchingStrategy", "machineMatchingStrategy", 3},
}

func rename(o object, from, to string) {
	if v, ok := o[from]; ok {
		delete(o, from)
		if _, there := o[to]; !there {
			o[to] = v
		}
	}
}

// snaked returns metadata with the names of nested members in snake case, as until version 1.4. Values stay to the
// letter.
func snaked(v jsontext.Value, nested bool) jsontext.Value {
	var members map[string]jsontext.Value
	var list []jsontext.Value
	var out any
	switch v.Kind() {
	case '{':
		if json.Unmarshal(v, &members) != nil {
			return v
		}
		all := map[string]jsontext.Value{}
		for name, value := range members {
			if nested {
				name = snake(name)
			}
			all[name] = snaked(value, true)
		}
		out = all
	case '[':
		if json.Unmarshal(v, &list) != nil {
			return v
		}
		for i := range list {
			list[i] = snaked(list[i], true)
		}
		out = list
	default:
		return v
	}
	b, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		return v
	}
	return b
}

func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.ReplaceAll(b.String(), "-", "_")
}
