package host

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// alphabet is Crockford's base 32: no I, L, O and U, which are misheard or misread.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// shortData is how many characters of a short code carry data; one more checks them.
const shortData = 15

// Short returns a code for the fingerprint that people can read over the phone: four groups of four characters. The
// first 15 are 75 bits of SHA-256 over the components. The last is their checksum over GF(32), which shows every wrong
// character and every two that changed places. Where no measured component tells the host from others, the agent's key
// stands in; without a key there is no code, and Short is empty.
func (r Report) Short() string {
	h := sha256.New()
	for _, c := range r.Components {
		for _, v := range c.Values {
			fmt.Fprintf(h, "%s=%s\n", c.Name, v)
		}
	}
	if !r.identified() {
		if r.agentKey == "" {
			return ""
		}
		fmt.Fprintf(h, "agent-key=%s\n", r.agentKey)
	}
	sum := h.Sum(nil)
	var code [shortData]byte
	for i := range code {
		bit := i * 5
		pair := uint16(sum[bit/8])<<8 | uint16(sum[bit/8+1])
		code[i] = byte(pair>>(11-bit%8)) & 31
	}
	return format(code)
}

// identified reports whether a measured component tells this host from others. Many hosts share the make of a
// processor, and hosts may share what the configuration states.
func (r Report) identified() bool {
	return slices.ContainsFunc(r.Components, func(c Component) bool {
		return len(c.Values) > 0 && !c.Configured && c.Name != "cpu"
	})
}

func format(code [shortData]byte) string {
	var b strings.Builder
	for i, v := range append(code[:], checksum(code)) {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[v])
	}
	return b.String()
}

// times multiplies in GF(32) with x^5 + x^2 + 1.
func times(a, b byte) (out byte) {
	for ; b > 0; b >>= 1 {
		if b&1 > 0 {
			out ^= a
		}
		if a <<= 1; a&32 > 0 {
			a ^= 0b100101
		}
	}
	return out
}

// checksum weighs each character with another power of x, so that a change of one, or of places, always shows.
func checksum(code [shortData]byte) (sum byte) {
	weight := byte(2)
	for _, v := range code {
		sum ^= times(v, weight)
		weight = times(weight, 2)
	}
	return sum
}

// ParseShort reads a short code as people write it (lower case, O for 0, I and L for 1, without dashes) and returns it
// as Short writes it. A code with a mistake is an error.
func ParseShort(s string) (string, error) {
	var code [shortData + 1]byte
	n := 0
	for _, r := range strings.ToUpper(s) {
		switch r {
		case ' ', '-', '\t', '\n', '\r':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		i := strings.IndexRune(alphabet, r)
		if i < 0 {
			return "", fmt.Errorf("short code: %q is not a character of a code, which has digits and letters but U", r)
		}
		if n == len(code) {
			n++
			break
		}
		code[n] = byte(i)
		n++
	}
	if n != len(code) {
		return "", fmt.Errorf("short code: it does not have the %d characters of a code; read it out again", len(code))
	}
	data := [shortData]byte(code[:shortData])
	if checksum(data) != code[shortData] {
		return "", fmt.Errorf(
			"short code: its last character does not fit the others: one was misheard; read it out again")
	}
	return format(data), nil
}
