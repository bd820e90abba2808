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
		Send:  func(body io.Reader) *http.Request { return request(awslm.OpCheckout, body) },
		Calls: calls(t, request, token),
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

// calls are the operations, with what AWS's model requires of each.
func calls(t *testing.T, request func(op string, in any) *http.Request,
	token func(*httptest.ResponseRecorder) string) (all []plugintest.DialectCall) {
	received := func(send plugintest.Sender) string {
		var all awslm.ListResponse
		w := send(request(awslm.OpListReceived, awslm.ListRequest{}))
		if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all.Licenses) == 0 {
			t.Error(err, w.Body)
			return ""
		}
		return all.Licenses[0].LicenseArn
	}
	entitlements := []string{"Entitlements", "Entitlements.0.Name", "Entitlements.0.Unit"}
	consumption := func(send plugintest.Sender) string {
		return token(send(request(awslm.OpCheckout, out("c", awslm.Provisional, ent("seats", "Count", "1")))))
	}
	for _, c := range []struct {
		op       string
		in       func(plugintest.Sender) any
		required []string
	}{
		{awslm.OpCheckout, func(plugintest.Sender) any {
			return out("c", awslm.Provisional, ent("seats", "Count", "1"))
		}, append([]string{"ProductSKU", "CheckoutType", "KeyFingerprint", "ClientToken"}, entitlements...)},
		{awslm.OpExtend, func(send plugintest.Sender) any {
			return awslm.ExtendRequest{LicenseConsumptionToken: consumption(send), DryRun: true}
		}, []string{"LicenseConsumptionToken"}},
		{awslm.OpCheckIn, func(send plugintest.Sender) any {
			return awslm.CheckInRequest{LicenseConsumptionToken: consumption(send)}
		}, []string{"LicenseConsumptionToken"}},
		{awslm.OpGetLicense, func(send plugintest.Sender) any {
			return awslm.LicenseRequest{LicenseArn: received(send)}
		}, []string{"LicenseArn"}},
		{awslm.OpGetUsage, func(send plugintest.Sender) any {
			return awslm.LicenseRequest{LicenseArn: received(send)}
		}, []string{"LicenseArn"}},
		{awslm.OpListReceived, func(send plugintest.Sender) any {
			return awslm.ListRequest{LicenseArns: []string{received(send)}, MaxResults: new(10),
				Filters: []awslm.Filter{{Name: awslm.FilterSKU, Values: []string{"x"}}}}
		}, nil},
	} {
		all = append(all, plugintest.DialectCall{Name: c.op, Required: c.required,
			Body: func(send plugintest.Sender) string {
				b, err := json.Marshal(c.in(send))
				if err != nil {
					t.Error(err)
				}
				return string(b)
			},
			Send: func(body io.Reader) *http.Request { return request(c.op, body) }})
	}
	return all
}
