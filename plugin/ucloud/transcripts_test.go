package ucloud_test

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/ucloud"
)

// exchange is a request and its answer. A text that ends in … is the beginning of the answer.
type exchange struct {
	method, target, body string
	status               int
	answer               string
}

const (
	bad      = `{"statusCode":400,"why":"Invalid request supplied","errorCode":null}`
	notFound = `{"statusCode":404,"why":"Not found","errorCode":null}`
	denied   = `{"statusCode":400,"why":"Permission denied. Try to reload the page and try again.","errorCode":null}`
	missing  = `{"statusCode":402,"why":"You are missing allocations for: x","errorCode":"NOT_ENOUGH_LICENSE_CREDITS"}`
	first    = `{"id":"1","specification":{"product":{"id":"abaqus","category":"abaqus","provider":"example"},` +
		`"labels":{}},"owner":{"createdBy":"local:uid-0","project":null},"createdAt":1777723200000,"status":{"state":` +
		`"READY","resolvedSupport":null,"resolvedProduct":null,"boundTo":[]},"updates":[],"permissions":null}`
	page = `{"itemsPerPage":50,"items":[` + first + `],"next":null}`
	none = `{"itemsPerPage":50,"items":[],"next":null}`
)

// transcripts has every call as clients of a generation send it, in turn, and what each is answered.
var transcripts = map[string][]exchange{
	"older": {
		{"POST", "/api/licenses/init", `{}`, 200, `{}`},
		{"GET", "/api/licenses/retrieveProducts", "", 200, `{"productsByProvider":{"example":[{"product":{…`},
		{"POST", "/api/licenses", item, 200, `{"responses":[{"id":"1"}]}`},
		{"GET", "/api/licenses/browse?includeOthers=false&itemsPerPage=50&consistency=PREFER", "", 200, page},
		{"GET", "/api/licenses/retrieve?id=1", "", 200, first},
		{"POST", "/api/licenses/search", `{"flags":{"includeOthers":false},"query":"abaqus","itemsPerPage":50,` +
			`"next":null,"consistency":"PREFER","itemsToSkip":null,"sortBy":null,"sortDirection":null}`, 200, page},
		{"POST", "/api/licenses/updateAcl", `{"items":[{"id":"1","added":[{"entity":{"type":"project_group",` +
			`"projectId":"p","group":"g"},"permissions":["READ"]}],"deleted":[]}]}`, 200, `{"responses":[{}]}`},
		{"POST", "/api/licenses/control/update", `{"items":[{"id":"1","update":{"timestamp":0,"state":"UNAVAILABLE",` +
			`"status":"down","binding":null}}]}`, 200, `{}`},
		{"POST", "/api/licenses/control/update", binding("1", "BIND", "42"), 400, `{"statusCode":400,"why":"abaqus ` +
			`with ID '1' is not ready","errorCode":null}`},
		{"POST", "/api/licenses/control/update", `{"items":[{"id":"1","update":{"timestamp":0,"state":"READY"}}]}`, 200,
			`{}`},
		{"POST", "/api/licenses/control/update", binding("1", "BIND", "42"), 200, `{}`},
		{"POST", "/api/licenses/control/update", binding("1", "UNBIND", "42"), 200, `{}`},
		{"GET", "/api/licenses/control/retrieve?id=1", "", 200, first},
		{"GET", "/api/licenses/control/browse?itemsPerPage=50", "", 200, page},
		{"POST", "/api/licenses/control/register", `{"items":[{"spec":{"product":{"id":"abaqus","category":"abaqus",` +
			`"provider":"example"}},"providerGeneratedId":"g","createdBy":null,"project":null,"projectAllRead":false,` +
			`"projectAllWrite":false}]}`, 200, `{"responses":[{"id":"2"}]}`},
		{"POST", "/api/licenses/control/register", `{"items":[{"spec":{"product":{"id":"abaqus","category":"abaqus",` +
			`"provider":"example"}},"providerGeneratedId":"g"}]}`, 200, `{"responses":[{"id":"2"}]}`},
		{"GET", "/api/licenses/retrieve?id=7", "", 404, notFound},
		{"GET", "/api/licenses/retrieve?id=1&filterIds=2", "", 404, notFound},
		{"GET", "/api/licenses/retrieve?id=abc", "", 404, notFound},
		{"DELETE", "/api/licenses", `{"items":[{"id":"1"},{"id":"7"}]}`, 400, denied},
		{"POST", "/api/licenses", ``, 400, bad},
		{"POST", "/api/licenses", `{"items":[{"product":{"id":"x","category":"x","provider":"example"}}]}`, 402,
			missing},
		{"DELETE", "/api/licenses", `{"items":[{"id":"1"},{"id":"2"}]}`, 200, `{"responses":[{},{}]}`},
		{"GET", "/api/licenses/browse", "", 200, none},
		{"GET", "/api/licenses", "", 404, notFound},
	},
	"newer": {
		{"POST", "/api/licenses", `{"items":[{"product":{"id":"abaqus","category":"abaqus","provider":"example"},` +
			`"labels":null}]}`, 200, `{"responses":[{"id":"1"}]}`},
		{"GET", "//api/licenses/browse?itemsPerPage=0&includeOthers=false&includeUpdates=false&includeSupport=false&" +
			"includeProduct=false", "", 200, page},
		{"GET", "/api/licenses/retrieve?id=1&includeOthers=false&includeUpdates=false&includeSupport=false&" +
			"includeProduct=false", "", 200, first},
		{"POST", "/api/licenses/search", `{"includeOthers":false,"includeUpdates":false,"includeSupport":false,` +
			`"includeProduct":false,"query":"abaqus","itemsPerPage":0}`, 200, page},
		{"POST", "/api/licenses/updateAcl", `{"items":[{"id":"1","added":null,"deleted":null}]}`, 200,
			`{"responses":[{}]}`},
		{"POST", "/api/licenses/updateAcl", `{"items":[{"id":"1","added":[{"entity":{"type":"user"},"permissions":` +
			`["READ"]}],"deleted":null}]}`, 403, `{"statusCode":403,"why":"Bad ACL update supplied","errorCode":null}`},
		{"POST", "/api/licenses/updateLabels", `{"items":[{"id":"1","labels":{"a":"b"}}]}`, 200, `{}`},
		{"GET", "/api/licenses/browse?filterLabels.a=c", "", 200, none},
		{"POST", "/api/licenses/updateLabels", `{"items":[{"id":"1","labels":null}]}`, 200, `{}`},
		{"POST", "/api/licenses/control/update", `{"items":[{"id":"1","update":{"timestamp":-62135596800000,` +
			`"state":"READY","status":"License is ready for use"}}]}`, 200, `{}`},
		{"POST", "/api/licenses/control/update", `{"items":[{"id":"7","update":{}}]}`, 404,
			`{"statusCode":404,"why":"Not found or permission denied (7)","errorCode":null}`},
		{"GET", "/api/licenses/browse?includeOthers=7", "", 400, bad},
		{"POST", "/api/licenses", `{"items":[{"product":{"id":"","category":"","provider":""}}]}`, 400,
			`{"statusCode":400,"why":"Resource does not specify a product","errorCode":null}`},
		{"GET", "/api/licenses/retrieve", "", 404, notFound},
		{"DELETE", "/api/licenses", `{"items":[{"id":"1"}]}`, 200, `{"responses":[{}]}`},
	},
}

// Each call of each generation is answered to the letter.
func TestDialectTranscripts(t *testing.T) {
	t.Parallel()
	for generation, all := range transcripts {
		c := newCounter(t, 2, ucloud.Settings{})
		c.as(0, true)
		for _, x := range all {
			got := c.send(x.status, x.method, x.target, x.body)
			if begin, open := strings.CutSuffix(x.answer, "…"); open && strings.HasPrefix(got, begin) {
				continue
			}
			if got != x.answer {
				t.Errorf("%s: %s %s %s\ngot  %s\nwant %s", generation, x.method, x.target, x.body, got, x.answer)
			}
		}
	}
}
