package keygen_test

import (
	"encoding/json"
	"testing"

	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// No zero in a file takes a term away: neither in the licence's own expiry nor in the file's, in a duty or in a limit.
// Keygen's null means that there is none.
func TestZerosInFiles(t *testing.T) {
	a := newAccount(t)
	for name, change := range map[string]func(meta, attributes object){
		"the licence ends": func(meta, _ object) { meta["expiry"] = nil },
		"the file ends":    func(_, attributes object) { attributes["expiry"] = nil },
	} {
		t.Run(name, func(t *testing.T) {
			set := licence(object{"expiry": "2027-01-31T00:00:00.000Z", "floating": true, "maxMachines": 3,
				"maxCores":  8,
				"maxMemory": 1 << 30, "maxDisk": 1 << 40, "maxProcesses": 5, "maxUses": 9, "requireHeartbeat": true,
				"requireCheckIn": true, "lastCheckIn": "2026-04-01T00:00:00.000Z",
				"nextCheckIn": "2026-05-01T00:00:00.000Z"},
				object{"checkInInterval": "month", "checkInIntervalCount": 1, "heartbeatDuration": 600,
					"overageStrategy": "NO_OVERAGE", "expirationStrategy": "REVOKE_ACCESS"})
			set["meta"] = object{"issued": "2026-04-01T00:00:00.000Z", "expiry": "2027-01-31T00:00:00.000Z",
				"ttl": 3600}
			change(set["meta"].(object), set["data"].(object)["attributes"].(object))
			statement, err := json.Marshal(set)
			if err != nil {
				t.Fatal(err)
			}
			plugintest.Format(t, keygen.Format{}, plugintest.FormatSamples{Good: [][]byte{a.file("LICENSE", set)},
				Anchors: a.anchors, Statement: statement, Absent: []string{plugintest.NullIsAbsent},
				Sign: func(statement []byte) ([]byte, error) {
					var set object
					err := json.Unmarshal(statement, &set)
					return a.file("LICENSE", set), err
				}})
		})
	}
}
