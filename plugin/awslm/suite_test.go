package awslm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// The dialect keeps what every dialect keeps.
func TestDialectKeepsThePromises(t *testing.T) {
	t.Parallel()
	request := func(op string, in any) *http.Request {
		body, reads := in.(io.Reader)
		if !reads {
			b, err := json.Marshal(in)
			if err != nil {
				t.Error(err)
			}
			body = bytes.NewReader(b)
		}
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.Header.Set("Content-Type", awslm.ContentType)
		r.Header.Set(awslm.TargetHeader, awslm.TargetPrefix+op)
		return r
	}
	token := func(taken *httptest.ResponseRecorder) string {
		var out awslm.CheckoutResponse
		if err := json.Unmarshal(taken.Body.Bytes(), &out); err != nil {
			t.Error(err)
		}
		return out.LicenseConsumptionToken
	}
	plugintest.Dialect(t, awslm.Dialect{}, plugintest.DialectSamples{
		License: native(), Pool: "seats", Slots: 2, NoSlots: awslm.ErrNoEntitlements,
		Now:     time.Now().UTC().Truncate(time.Second),
		Prepare: func(d *plugintest.Desk) { d.Signer = agentKey },
		Take: func(i int) *http.Request {
			return request(awslm.OpCheckout,
				out(fmt.Sprint("consumer-", i), awslm.Provisional, ent("seats", "Count", "1")))
		},
		Give: func(_ int, taken *httptest.ResponseRecorder) *http.Request {
			return request(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: token(taken)})
		},
		Held: func(_ int, taken *httptest.ResponseRecorder) *http.Request {
			return request(awslm.OpExtend, awslm.ExtendRequest{LicenseConsumptionToken: token(taken)})
		},
		Send: func(body io.Reader) *http.Request { return request(awslm.OpCheckout, body) },
		Refusal: func(w *httptest.ResponseRecorder) error {
			var f awslm.Fault
			switch err := json.Unmarshal(w.Body.Bytes(), &f); {
			case err != nil:
				return err
			case f.Code == "" || f.Message == "" || w.Header().Get("X-Amzn-ErrorType") != f.Code:
				return errors.New("no __type with a message")
			}
			return nil
		},
	})
}
