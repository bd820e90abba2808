package remote

import (
	"reflect"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// All that leaves the host with a call reaches a plugin's upstream: no field is forgotten on the way but those that are
// for built-in systems, which no plugin is told.
func TestRequestCrosses(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)
	r := &plugin.Request{LicenseID: "L1", Document: []byte("d"), Product: "acme", Version: "1.2",
		Components: map[string][]string{"mac": {"aa", "bb"}, "tpm": {"cc"}}, AgentKey: "k",
		Cores: plugin.Cores{Physical: 2, Logical: 4, Effective: 1.5},
		Usage: []plugin.Usage{{Pool: "streams", InUse: 1, Peak: 2, Denied: 3}},
		Emergencies: []plugin.Emergency{{Began: at, Ends: at.Add(time.Hour), Reason: "a storm"},
			{Began: at.AddDate(0, 1, 0), Ends: at.AddDate(0, 2, 0), Reason: "another"}},
		Nonce: []byte("0123456789abcdef"), State: []byte("s")}
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; name {
		case "System", "Fingerprint", "Hostname", "Memory", "Disk":
			continue
		}
		if v.Field(i).IsZero() {
			t.Errorf("this test says nothing of %s", v.Type().Field(i).Name)
		}
	}
	if got := decodeRequest(encodeRequest(r)); !reflect.DeepEqual(got, r) {
		t.Errorf("sent %+v\ncame %+v", r, got)
	}
}
