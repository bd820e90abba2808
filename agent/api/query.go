package api

import (
	"net/url"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// anyQuery stands for all parameters: scrapers put some of their own behind /metrics.
const anyQuery = "*"

// repeated are the parameters that a query may have more than once.
var repeated = []string{"group", "label"}

// checkQuery denies a query that the route does not read in full, as strictly as bodies are read: a misspelt dry_run
// must not install a licence.
func (r *route) checkQuery(raw string) *enforcer.Denial {
	if slices.Contains(r.query, anyQuery) {
		return nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return badRequest("", "write %25 for %, %26 for & and %3B for ; in a value", "the query cannot be read: %v",
			err)
	}
	for name, values := range q {
		switch {
		case !slices.Contains(r.query, name):
			return badRequest(plugin.Short(name), r.reads(), "query parameter %q is not known", plugin.Short(name))
		case len(values) > 1 && !slices.Contains(repeated, name):
			return badRequest(name, "give it once", "query parameter %q is given %d times", name, len(values))
		}
	}
	return nil
}

// reads says which parameters the route has.
func (r *route) reads() string {
	if len(r.query) == 0 {
		return r.method + " " + r.path + " has none"
	}
	return r.method + " " + r.path + " has " + strings.Join(r.query, ", ")
}
