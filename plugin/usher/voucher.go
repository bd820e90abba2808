package usher

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/usher-agent/usher/plugin/redact"
)

// VoucherClaim is the claim with the vendor's word for the agents' keys that the licence names: a JWS of type
// usher-activation+jwt that says the licence's id, its product and the keys, and nothing else of the licence. By it a
// product that may not see the licence can prove the agent. The name is of those that every agent takes, however old.
const VoucherClaim = "x_agent_voucher"

// Voucher returns a licence's voucher out of its terms; empty: it has none.
func Voucher(terms map[string]any) string {
	s, _ := terms[VoucherClaim].(string)
	return s
}

// Discreet returns a document in its compact form where all of it may be shown to callers who are not admins: nothing
// in it is a secret or an e-mail address. nil: it may not, or it cannot be read.
func Discreet(document []byte) []byte {
	compact := Compact(document)
	parts := strings.Split(string(compact), ".")
	if len(parts) != 3 {
		return nil
	}
	for _, p := range parts[:2] {
		b, err := base64.RawURLEncoding.DecodeString(p)
		var v any
		if err != nil || json.Unmarshal(b, &v) != nil || !reflect.DeepEqual(redact.Value(v), v) {
			return nil
		}
	}
	return compact
}
