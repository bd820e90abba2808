package keygen_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// The dialect keeps what every dialect keeps.
func TestDialectKeepsThePromises(t *testing.T) {
	request := func(method, target string, body io.Reader) *http.Request {
		r := httptest.NewRequest(method, "http://"+host+target, body)
		r.RequestURI = target
		return r
	}
	name := func(i int) string { return fmt.Sprintf("machine-%d", i) }
	plugintest.Dialect(t, keygen.Dialect{}, plugintest.DialectSamples{
		License: terms(nil),
		Now:     time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
		Pool:    "machines", Slots: 2, NoSlots: "MACHINE_LIMIT_EXCEEDED",
		Prepare: func(d *plugintest.Desk) { d.Facts = newDesk().Facts },
		Take: func(i int) *http.Request {
			return request("POST", "/v1/machines", strings.NewReader(machineBody("lic-1", name(i), "")))
		},
		Give: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return request("DELETE", "/v1/machines/"+name(i), http.NoBody)
		},
		Held: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return request("GET", "/v1/machines/"+name(i), http.NoBody)
		},
		Send: func(body io.Reader) *http.Request { return request("POST", "/v1/machines", body) },
		Refusal: func(w *httptest.ResponseRecorder) error {
			var doc struct {
				Errors []struct{ Title, Detail string }
			}
			switch err := json.Unmarshal(w.Body.Bytes(), &doc); {
			case err != nil:
				return err
			case len(doc.Errors) != 1 || doc.Errors[0].Title == "" || doc.Errors[0].Detail == "":
				return errors.New("no error with title and detail")
			case w.Header().Get("Keygen-Signature") == "":
				return errors.New("it is not signed")
			}
			return nil
		},
	})
}
