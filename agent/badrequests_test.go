package agent_test

import (
	"slices"
	"strings"
)

// badRequest is a request that is refused, with its status and parts of the problem.
type badRequest struct {
	name, method, path, kind, body string
	status                         int
	want                           []string
}

// badRequests are requests to an agent with a pool of three streams, where the lease id has been released.
func badRequests(id string) []badRequest {
	return slices.Concat(badAcquires(), []badRequest{
		{"released twice", "DELETE", "/v1/leases/" + id, "", "", 404,
			[]string{"lease_unknown", "it was released"}},
		{"renewed after", "PUT", "/v1/leases/" + id, asJSON, "{}", 404, []string{"lease_unknown"}},
		{"no lease", "GET", "/v1/leases/00000000000000000000000000000000", "", "", 404, []string{"lease_unknown"}},
		{"no id", "GET", "/v1/leases/12", "", "", 400, []string{`"field":"id"`, "32 hexadecimal digits"}},
		{"no truth", "DELETE", "/v1/leases/" + id + "?force=maybe", "", "", 400,
			[]string{`"field":"force"`, "use true or false"}},
		{"no such pool", "GET", "/v1/pools/nope", "", "", 404, []string{"pool_unknown", "known are: streams"}},
		{"no such route", "GET", "/v1/nope", "", "", 404, []string{"route_unknown", "there is no route /v1/nope"}},
		{"no such method", "PATCH", "/v1/leases", "", "", 405, []string{"method_unknown", "use POST or GET"}},
		{"no such meter", "PUT", "/v1/pools/streams", asJSON, `{"drawn":1}`, 404,
			[]string{"pool_unknown", `there is no meter \"streams\"`}},
		{"drawn less than nothing", "PUT", "/v1/pools/streams", asJSON, `{"drawn":-1}`, 400,
			[]string{`"field":"drawn"`}},
		{"no reason", "POST", "/v1/emergency", asJSON, `{"reason":" "}`, 400, []string{`"field":"reason"`}},
		{"a reason of two lines", "POST", "/v1/emergency", asJSON, `{"reason":"a\nb"}`, 400,
			[]string{`"field":"reason"`}},
		{"no emergency", "POST", "/v1/emergency", asJSON, `{"reason":"x"}`, 409,
			[]string{"emergency_refused", "the licence is valid: an emergency would be spent for nothing"}},
		{"no licence returned", "POST", "/v1/license/return", asJSON, `{}`, 400, []string{`"field":"license"`}},
		{"another licence returned", "POST", "/v1/license/return", asJSON, `{"license":"nope"}`, 404,
			[]string{"document_unknown"}},
		{"no document", "PUT", "/v1/license", "", "", 400, []string{`"field":"document"`}},
		{"2 MiB", "PUT", "/v1/license", "application/octet-stream", strings.Repeat("x", 2<<20), 413,
			[]string{"too_large", "larger than 1048576 bytes"}},
		{"noise", "PUT", "/v1/license", "application/octet-stream", "\x00\x01\x02", 422,
			[]string{"document_refused", "it is not a licence of any known system"}},
		{"nothing to roll back", "POST", "/v1/license/rollback?name=x.lic", "", "", 404, []string{"document_unknown"}},
		{"no such document", "DELETE", "/v1/license/documents/x.lic", "", "", 404, []string{"document_unknown"}},
	})
}

// badAcquires are those of them that ask for a lease.
func badAcquires() []badRequest {
	long := `{"pool":"` + strings.Repeat("x", 65<<10) + `"}`
	return []badRequest{
		{"unknown pool", "POST", "/v1/leases", asJSON, `{"pool":"nope"}`, 404,
			[]string{"pool_unknown", `pool \"nope\" is not in the licence`, "the licence has: streams"}},
		{"n = 0", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":0}`, 400,
			[]string{`"field":"n"`, "n is 0: ask for at least 1 slot"}},
		{"n negative", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":-1}`, 400,
			[]string{`"field":"n"`, "n is -1"}},
		{"n over the limit", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":4}`, 409,
			[]string{"no_slots", "the request is for 4 slots, and there are only 3 in all", `"limit":3`, `"in_use":0`}},
		{"n over the bound", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":9223372036854775807}`, 400,
			[]string{`"field":"n"`, "at most 281474976710656 slots"}},
		{"n overflows", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":9223372036854775808}`, 400,
			[]string{`"field":"n"`}},
		{"n overflows by far", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":1e400}`, 400,
			[]string{`"field":"n"`}},
		{"n a fraction", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":1.5}`, 400, []string{`"field":"n"`}},
		{"n a text", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":"1"}`, 400,
			[]string{`"field":"n"`, "n must be a whole number, not a text"}},
		{"no pool", "POST", "/v1/leases", asJSON, `{}`, 400, []string{`"field":"pool"`, "pool is missing"}},
		{"pool and items", "POST", "/v1/leases", asJSON, `{"pool":"streams","items":[{"pool":"streams","n":1}]}`, 400,
			[]string{`"field":"items"`}},
		{"a pool twice", "POST", "/v1/leases", asJSON, `{"items":[{"pool":"streams","n":1},{"pool":"streams","n":1}]}`,
			400, []string{"is named twice"}},
		{"ttl too short", "POST", "/v1/leases", asJSON, `{"pool":"streams","ttl_seconds":0.5}`, 400,
			[]string{`"field":"ttl_seconds"`, "give from 1 to 86400"}},
		{"ttl absurd", "POST", "/v1/leases", asJSON, `{"pool":"streams","ttl_seconds":1e300}`, 400,
			[]string{`"field":"ttl_seconds"`}},
		{"lifetime unknown", "POST", "/v1/leases", asJSON, `{"pool":"streams","lifetime":"process"}`, 400,
			[]string{`"field":"lifetime"`, "use ttl, held or borrow"}},
		{"waiting too long", "POST", "/v1/leases", asJSON, `{"pool":"streams","wait_seconds":86401}`, 400,
			[]string{`"field":"wait_seconds"`, "give from 0 to 86400"}},
		{"waiting in vain", "POST", "/v1/leases", asJSON, `{"pool":"streams","n":4,"wait_seconds":60}`, 409,
			[]string{"no_slots", "there are only 3 in all", `"waited_seconds":0`}},
		{"a connection's", "POST", "/v1/leases", asJSON, `{"pool":"streams","lifetime":"connection"}`, 400,
			[]string{`"field":"lifetime"`, "use ttl, held or borrow"}},
		{"a draw of a pool", "POST", "/v1/leases", asJSON, `{"pool":"streams","lifetime":"draw"}`, 400,
			[]string{`"field":"lifetime"`, "lifetime draw is for meters"}},
		{"unknown field", "POST", "/v1/leases", asJSON, `{"pool":"streams","ttl":5}`, 400,
			[]string{`"field":"ttl"`, `field \"ttl\" is not known`, "known are: pool, n", "labels, pid, until"}},
		{"a priority", "POST", "/v1/leases", asJSON, `{"pool":"streams","priority":5}`, 400,
			[]string{`"field":"priority"`, "a caller does not choose its own priority",
				"the site's policies give priorities"}},
		{"almost a field", "POST", "/v1/leases", asJSON, `{"pool":"streams","clientToken":"x"}`, 400,
			[]string{`did you mean \"client_token\"?`}},
		{"wrong case", "POST", "/v1/leases", asJSON, `{"Pool":"streams"}`, 400,
			[]string{`field \"Pool\" is not known`, `did you mean \"pool\"?`}},
		{"duplicate keys", "POST", "/v1/leases", asJSON, `{"pool":"streams","pool":"other"}`, 400,
			[]string{`the JSON names \"pool\" twice`}},
		{"bad UTF-8", "POST", "/v1/leases", asJSON, "{\"pool\":\"a\xff\"}", 400,
			[]string{"the JSON is not valid UTF-8"}},
		{"trailing rubbish", "POST", "/v1/leases", asJSON, `{"pool":"streams"} x`, 400, []string{"not valid JSON"}},
		{"cut off", "POST", "/v1/leases", asJSON, `{"pool":"str`, 400, []string{"not valid JSON"}},
		{"a list", "POST", "/v1/leases", asJSON, `[]`, 400, []string{"the body is not a JSON object"}},
		{"empty", "POST", "/v1/leases", asJSON, ``, 400, []string{"the body is empty"}},
		{"65 KiB", "POST", "/v1/leases", asJSON, long, 413,
			[]string{"too_large", "the body is larger than 65536 bytes"}},
		{"wrong content type", "POST", "/v1/leases", "application/x-www-form-urlencoded", `{"pool":"streams"}`, 400,
			[]string{`"field":"Content-Type"`, "curl --json does"}},
		{"no content type", "POST", "/v1/leases", "", `{"pool":"streams"}`, 400, []string{`"field":"Content-Type"`}},
	}
}
