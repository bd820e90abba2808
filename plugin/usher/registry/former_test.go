package registry_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// A store of before keys had to show the document keeps its hosts: they go on with what they were told, and show the
// document by themselves when there is a renewal for them. A stranger whom it has admitted gets no document.
func TestFormerStore(t *testing.T) {
	o := openOffice(t, nil)
	h, stranger := o.host(o.sign("L1", nil)), o.host(o.sign("L1", nil))
	h.chain, stranger.chain = []byte("c2"), []byte("c2")
	err := o.DB().Update(func(tx *bbolt.Tx) error {
		licence, err := json.Marshal(map[string]any{"id": "L1", "product": "acme", "document": string(h.doc),
			"state": "active", "machines": 2, "added": o.clock()})
		if err != nil {
			return err
		}
		if err := tx.Bucket([]byte("licences")).Put([]byte("L1"), licence); err != nil {
			return err
		}
		for _, x := range []*host{h, stranger} {
			thumb, err := plugin.Thumbprint(x.key.Public())
			if err != nil {
				return err
			}
			at := o.clock().Add(-time.Hour)
			// As the former version wrote it: nonces of several seconds, and no word of what the host has shown.
			record := fmt.Sprintf(
				`{"license":"L1","agent_key":%q,"activated":%q,"seen":%q,"issued":%d,"chain":"c2","previous":"c1",`+
					`"nonces":["bm9uY2Ux","bm9uY2Uy"],"version":"1.2","components":{"machine_id":["ab"]}}`,
				thumb, at.Format(time.RFC3339), at.Format(time.RFC3339), at.Unix())
			if err := tx.Bucket([]byte("activations")).Put([]byte("L1\x00"+thumb), []byte(record)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := h.ask(h.Heartbeat)
	must(t, reply, err)
	if _, err := o.Renew("L1", o.clock().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	o.pass(time.Second)
	reply, err = h.ask(h.CheckIn)
	if must(t, reply, err).Document == nil {
		t.Error("the host gets no renewal")
	}
	for _, call := range []string{online.CallCheckIn, online.CallActivate, online.CallHeartbeat} {
		got := o.say(stranger.key, call, func(r *online.Request) { r.Chain, r.Dated = string(stranger.chain), 1 })
		if got.Document != "" {
			t.Errorf("%s: a key that has shown nothing is sent the document", call)
		}
	}
	if n := len(o.hosts("L1")); n != 2 {
		t.Errorf("%d of 2 hosts are known", n)
	}
}
