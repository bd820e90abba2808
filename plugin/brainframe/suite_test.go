package brainframe_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
)

// fault says why an answer is no error of BrainFrame.
func fault(w *httptest.ResponseRecorder) error {
	var f map[string]string
	switch err := json.Unmarshal(w.Body.Bytes(), &f); {
	case err != nil:
		return err
	case f["title"] == "" || f["description"] == "" || len(f) != 2:
		return errors.New("there are no title and description")
	case w.Code == http.StatusBadGateway:
		return errors.New("clients take 502 for a server that is away")
	}
	return nil
}

// The dialect keeps what every dialect keeps.
func TestDialectKeepsThePromises(t *testing.T) {
	t.Parallel()
	analyze := func(method string, i int, body io.Reader) *http.Request {
		return httptest.NewRequest(method, fmt.Sprintf("/api/streams/%d/analyze", i), body)
	}
	plugintest.Dialect(t, brainframe.Dialect{}, plugintest.DialectSamples{
		License: licence(t, func(c *usher.Claims) {
			c.Pools["streams"] = usher.Pool{Max: new(int64(2)), Scope: "host"}
			c.Expires = 0
		}),
		Pool: "streams", Slots: 2, NoSlots: brainframe.AnalysisLimit,
		Take: func(i int) *http.Request { return analyze("PUT", i, strings.NewReader("true")) },
		Give: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return analyze("PUT", i, strings.NewReader("false"))
		},
		Held:    func(i int, _ *httptest.ResponseRecorder) *http.Request { return analyze("GET", i, http.NoBody) },
		Says:    func(w *httptest.ResponseRecorder) bool { return w.Body.String() == "true" },
		Send:    func(body io.Reader) *http.Request { return analyze("PUT", 1, body) },
		Reads:   []string{"/api/version", "/api/license", "/api/streams/1/analyze", "/api/cloud_user"},
		Refusal: fault,
	})
}
