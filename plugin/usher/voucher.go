package usher

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/usher-agent/usher/plugin/redact"
)

// VoucherClaim is the claim with the vendor's word for the agents' keys that the licence names: a JWS of type
// usher-activation+jwt that holds the licence's id, its product and the keys, and nothing else of the licence. With it
// an agent can prove itself to a product that may not see the licence. The name begins as the vendor's own claims do,
// which every agent takes, however old.
const VoucherClaim = "x_agent_voucher"

// Voucher returns the voucher in a licence's terms; empty: it has none.
func Voucher(terms map[string]any) string {
	s, _ := terms[VoucherClaim].(string)
	return s
}

// Discreet returns a document in its compact form if callers that are not admins may see all of it: it holds neither a
// secret nor an e-mail address. nil: they may not, or it cannot be read.
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
