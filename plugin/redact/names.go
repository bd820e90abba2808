package redact

import (
	"slices"
	"strings"
	"unicode"
)

// meaning is the meaning of a member's name for its value.
type meaning int

const (
	innocent meaning = iota
	counted          // a count of secrets: a number under it is no secret, other values are
	secret
)

var (
	// Words that mean a secret anywhere in a name, in the singular.
	secretWords = []string{"key", "secret", "token", "password", "passwd", "passphrase", "passcode", "passkey", "pass",
		"pwd", "pw", "psk", "pin", "otp", "totp",
		"credential", "cred", "private", "bearer", "jwt", "jws", "jwe", "cookie", "apikey", "keytab", "keystore",
		"keypair", "keyfile", "authorization", "mnemonic",
		"schluessel", "passwort", "kennwort"}
	// Parts of names written without a break.
	secretParts = []string{"password", "passwd", "passphrase", "passcode", "credential", "privatekey", "apikey",
		"secretkey", "accesskey", "passwort", "kennwort"}
	// Ends of names written without a break: accesstoken, clientsecret.
	secretEnds = []string{"token", "secret"}
	// Words before key in names without a break. monkey, hockey and turkey have none of these.
	beforeKey = []string{"access", "activation", "api", "app", "auth", "client", "customer", "decryption", "encryption",
		"host", "license", "licence", "master", "private",
		"product", "root", "secret", "serial", "server", "session", "shared", "sign", "signing", "ssh", "user",
		"vendor", "web"}

	// With these, a name with key means the key's id or kind, not the key.
	aboutKey = []string{"id", "kid", "type", "kind", "alg", "algorithm", "usage", "use", "size", "bit", "length",
		"thumbprint", "fingerprint"}
	// With these, the key is no secret: it is public, or the agent's, whose thumbprint licences contain.
	publicKey = []string{"public", "pub", "agent", "verify", "verifying", "verification", "primary", "foreign", "sort",
		"partition", "idempotency"}
	// With these, it is a secret nevertheless.
	surelySecret = []string{"secret", "private", "password", "token", "access", "api", "license", "licence",
		"credential"}
	// With these, the value is a count or a measure.
	counting = []string{"max", "maximum", "min", "minimum", "count", "counter", "num", "limit", "total", "quota", "per",
		"ttl", "lifetime", "age", "length", "size", "bit",
		"second", "minute", "hour", "day", "expiry", "used", "remaining", "budget"}
)

// Secret reports whether a name means a secret: a key, token, secret, password, credential, or something private. The
// name may be in camel case, have hyphens, underscores or dots, or no break, and be singular or plural. A count of
// secrets (max_keys), an id of a key (key_id) and a public key (public_key) are no secrets.
func Secret(name string) bool { return meaningOf(name) == secret }

func meaningOf(name string) meaning {
	words, plural := split(name)
	found, onlyKey := false, true
	for _, w := range words {
		if is, key := speaks(w); is {
			found, onlyKey = true, onlyKey && key
		}
	}
	if !found {
		return innocent
	}
	has := func(any []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	if onlyKey && !has(surelySecret) && len(words) > 1 &&
		(slices.Contains(aboutKey, words[len(words)-1]) || has(publicKey)) {
		return innocent
	}
	if has(counting) || plural && !has([]string{"secret", "private", "password", "pin"}) {
		return counted
	}
	return secret
}

// speaks reports whether a word means a secret, and whether that is only the word key.
func speaks(w string) (is, key bool) {
	if slices.Contains(secretWords, w) {
		return true, w == "key"
	}
	ends := func(end string) bool { return len(w) > len(end) && strings.HasSuffix(w, end) }
	if slices.ContainsFunc(secretParts, func(p string) bool {
		return strings.Contains(w, p)
	}) || slices.ContainsFunc(secretEnds, ends) {
		return true, false
	}
	before, ok := strings.CutSuffix(w, "key")
	return ok && slices.Contains(beforeKey, before), false
}

// split returns the words of a name, in lower case and the singular. plural says that the last one was plural.
func split(name string) (words []string, plural bool) {
	var word []rune
	end := func() {
		if len(word) > 0 {
			w := strings.ToLower(string(word))
			s := singular(w)
			words, plural, word = append(words, s), s != w, nil
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsMark(r):
			end()
			continue
		case unicode.IsUpper(r) && i > 0:
			next := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			// An acronym ends before its last capital, except before a plural s: APIKey, JWTs.
			if unicode.IsLower(runes[i-1]) || unicode.IsUpper(runes[i-1]) && next &&
				!(runes[i+1] == 's' && (i+2 == len(runes) || !unicode.IsLower(runes[i+2]))) {
				end()
			}
		}
		word = append(word, r)
	}
	end()
	return words, plural
}

func singular(w string) string {
	if len(w) > 3 && strings.HasSuffix(w, "s") && !strings.HasSuffix(w, "ss") || slices.Contains([]string{"ids"}, w) {
		return strings.TrimSuffix(w, "s")
	}
	return w
}
