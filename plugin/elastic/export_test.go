package elastic

import "testing"

// SignedContent returns what the signature of a document's licence covers.
func SignedContent(t *testing.T, document []byte, kind string, version int32) string {
	t.Helper()
	all, err := parse(document)
	if err != nil {
		t.Fatal(err)
	}
	if kind == KindOrchestration {
		return string(latest(all).orchestrationContent(byGo))
	}
	return string(latest(all).stackContent(version, byJava))
}

// Escaped writes a string as the i-th signer does: Java, new Java, Go.
func Escaped(i int, s string) []byte {
	return []escaping{byJava, byNewJava, byGo}[i].appendString(nil, s)
}
