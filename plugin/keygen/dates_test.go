package keygen

import (
	"testing"
	"time"
)

// A date that a signed key states is judged as the date it is, or is a fault: a key whose end cannot be read, or is a
// zero, does not last for ever.
func TestKeyDates(t *testing.T) {
	for _, row := range []struct {
		data  string
		fault bool
		ends  time.Time
	}{
		{`{"expiry":"2027-01-31T00:00:00Z"}`, false, time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)},
		{`{"license":{"expiry":"2027-01-31T00:00:00Z"}}`, false, time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)},
		{`{"exp":1700000000}`, false, time.Unix(1_700_000_000, 0)},
		{`{"exp":0}`, false, time.Unix(0, 0)},
		{`{"expiry":"0001-01-01T00:00:00Z"}`, false, time.Time{}.Add(1)},
		{`{"expiry":"2027-13-45"}`, true, time.Time{}},
		{`{"expiry":"soon"}`, true, time.Time{}},
		{`{"license":{"expiry":[]}}`, true, time.Time{}},
		{`{"exp":-1}`, true, time.Time{}},
		{`{"exp":1e300}`, true, time.Time{}},
		{`{"exp":"never"}`, true, time.Time{}},
		{`{"nbf":true}`, true, time.Time{}},
		{`{"expiry":null}`, false, time.Time{}},
		{`{"id":"x"}`, false, time.Time{}},
	} {
		l, err := (&document{key: "k", data: []byte(row.data)}).keyLicense()
		if (err != nil) != row.fault || err == nil && !l.Expires.Equal(row.ends) {
			t.Errorf("%s: %v, %v", row.data, l, err)
		}
	}
	var first time.Time
	if timeOf(&first).IsZero() || !timeOf(nil).IsZero() {
		t.Error("the first date of all is none")
	}
}
