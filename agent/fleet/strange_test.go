package fleet

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// An answer that lacks what etcd's have is an error that says so, whatever it lacks.
func TestStrangeAnswers(t *testing.T) {
	ranged := func(kvs ...*mvccpb.KeyValue) *etcdserverpb.ResponseOp {
		return &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponseRange{
			ResponseRange: &etcdserverpb.RangeResponse{Kvs: kvs}}}
	}
	put := &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{}}
	header := &etcdserverpb.ResponseHeader{Revision: 7, ClusterId: 1}
	txn := &Txn{If: []Is{absent("x")}, Then: []Op{{Get: "a"}, {Put: "b"}}, Else: []Op{{List: "c"}}}
	type response = etcdserverpb.TxnResponse
	for name, res := range map[string]*response{
		"nothing":        nil,
		"no header":      {Succeeded: true, Responses: []*etcdserverpb.ResponseOp{ranged(), put}},
		"no steps":       {Header: header, Succeeded: true},
		"too few steps":  {Header: header, Succeeded: true, Responses: []*etcdserverpb.ResponseOp{ranged()}},
		"too many steps": {Header: header, Responses: []*etcdserverpb.ResponseOp{ranged(), put}},
		"another step":   {Header: header, Succeeded: true, Responses: []*etcdserverpb.ResponseOp{put, put}},
		"a nil step":     {Header: header, Succeeded: true, Responses: []*etcdserverpb.ResponseOp{nil, nil}},
		"an empty step":  {Header: header, Responses: []*etcdserverpb.ResponseOp{{}}},
		"a nil key":      {Header: header, Responses: []*etcdserverpb.ResponseOp{ranged(nil)}},
	} {
		if got, err := resultOf(txn, res); !errors.Is(err, errStrange) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := resultOf(&Txn{Then: []Op{{Get: "a"}}}, &response{Header: header}); !errors.Is(err, errStrange) {
		t.Errorf("what nothing keeps from being done was not done: %+v, %v", got, err)
	}
	good := &response{Header: header, Succeeded: true,
		Responses: []*etcdserverpb.ResponseOp{ranged(&mvccpb.KeyValue{Key: []byte("a"), ModRevision: 3}), put}}
	got, err := resultOf(txn, good)
	if err != nil || !got.Done || got.Rev != 7 || len(got.Got) != 1 || got.Got[0][0].Mod != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}
