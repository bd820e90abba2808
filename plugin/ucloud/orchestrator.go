package ucloud

import (
	"cmp"
	"net/http"
	"path"
	"slices"
	"strings"
)

// The calls of a UCloud to the licence's provider are at /ucloud/{provider}/licenses.
const (
	providerRoot = "/ucloud/"
	providerBase = "/licenses"
)

var providerRoutes = map[string]func(*request) (any, *Fault){
	"POST ":                 (*request).coreCreate,
	"DELETE ":               (*request).coreDelete,
	"POST /verify":          (*request).coreVerify,
	"GET /retrieveProducts": (*request).coreProducts,
	"POST /updateAcl":       (*request).coreACL,
	"POST /onUpdatedLabels": (*request).coreLabels,
	"POST /init":            func(*request) (any, *Fault) { return Empty{}, nil },
}

// orchestrated returns the call of a UCloud that a request is; of another provider's there is none.
func (s *local) orchestrated(r *http.Request) (serve func(*request) (any, *Fault), ok bool) {
	rest, ok := strings.CutPrefix(path.Clean("/"+r.URL.Path), providerRoot+s.provider()+providerBase)
	serve, known := providerRoutes[r.Method+" "+rest]
	return serve, ok && known
}

// answerCore answers a call of a UCloud. It comes with a token of the role SERVICE or ADMIN, or from an admin of the
// agent.
func (x *request) answerCore(serve func(*request) (any, *Fault)) (any, *Fault) {
	if f := x.read(); f != nil {
		return nil, f
	}
	var f *Fault
	if x.who, f = x.identify(); f != nil {
		return nil, f
	}
	if !x.who.admin && x.who.role != roleService {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	return serve(x)
}

// incoming is a licence as a UCloud sends it.
type incoming struct {
	ID            string     `json:"id"`
	Specification newLicense `json:"specification"`
	Owner         struct {
		CreatedBy string  `json:"createdBy"`
		Project   *string `json:"project"`
	} `json:"owner"`
}

// known returns the licences that a UCloud has told of, by its ids.
func (x *request) known() map[string]*record {
	out := map[string]*record{}
	for _, r := range x.all() {
		if r.Core != "" {
			out[r.Core] = r
		}
	}
	return out
}

// coreCreate takes over licences, all or none. One that is known is the same licence: a UCloud asks again where an
// answer was lost. The answer has the ids that they have here.
func (x *request) coreCreate() (any, *Fault) {
	items, f := bulk[incoming](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	known := x.known()
	var made, all []*record
	for i := range items {
		item := &items[i]
		if item.ID == "" || len(item.ID) > maxName {
			return nil, refuse(http.StatusBadRequest, "A licence has no id, or one of more than 256 bytes")
		}
		r := known[item.ID]
		if r == nil {
			if r, f = x.make(item.Specification); f != nil {
				return nil, f
			}
			r.Core, r.CreatedBy = item.ID, cmp.Or(clip(item.Owner.CreatedBy, maxName), "_ucloud")
			if item.Owner.Project != nil {
				r.Project = clip(*item.Owner.Project, maxName)
			}
			known[item.ID] = r
			made = append(made, r)
		}
		all = append(all, r)
	}
	if len(made) > 0 {
		if _, f := x.add(made); f != nil {
			return nil, f
		}
	}
	out := Responses[ID]{}
	for _, r := range all {
		out.Responses = append(out.Responses, ID{r.id()})
	}
	return out, nil
}

// coreDelete forgets licences and gives their slots back. One that is not known is forgotten already.
func (x *request) coreDelete() (any, *Fault) {
	items, f := bulk[incoming](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	known := x.known()
	var list []*record
	for i := range items {
		if r := known[items[i].ID]; r != nil && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	for _, r := range list {
		if f := x.unbind(r, ""); f != nil {
			return nil, f
		}
	}
	if f := x.forget(list); f != nil {
		return nil, f
	}
	return Responses[Empty]{make([]Empty, len(items))}, nil
}

// coreVerify refuses a licence that is not known, or whose product is no longer there.
func (x *request) coreVerify() (any, *Fault) {
	items, f := bulk[incoming](x)
	if f != nil {
		return nil, f
	}
	known := x.known()
	for i := range items {
		r := known[items[i].ID]
		if r == nil {
			return nil, refuse(http.StatusNotFound, "License is no longer valid. Was it deleted?")
		}
		if _, f := x.usable(r.Product); f != nil {
			return nil, f
		}
	}
	return Empty{}, nil
}

func (x *request) coreProducts() (any, *Fault) {
	out := Responses[LicenseSupport]{Responses: []LicenseSupport{}}
	for _, o := range x.offers() {
		out.Responses = append(out.Responses, o.support())
	}
	return out, nil
}

// coreChange makes a change of licences that a UCloud tells of, all or none.
func coreChange[T any](x *request, of func(*T) string, change func(*request, *record, *T) *Fault) (any, *Fault) {
	items, f := bulk[T](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	known := x.known()
	var changed []*record
	for i := range items {
		r := known[of(&items[i])]
		if r == nil {
			return nil, errGone
		}
		if f := change(x, r, &items[i]); f != nil {
			return nil, f
		}
		if !slices.Contains(changed, r) {
			changed = append(changed, r)
		}
	}
	if f := x.save(changed); f != nil {
		return nil, f
	}
	return Responses[Empty]{make([]Empty, len(items))}, nil
}

// coreACL changes with whom licences are shared.
func (x *request) coreACL() (any, *Fault) {
	type item struct {
		Resource incoming `json:"resource"`
		aclItem
	}
	return coreChange(x, func(i *item) string { return i.Resource.ID },
		func(_ *request, r *record, i *item) *Fault { return i.share(r) })
}

// coreLabels replaces labels.
func (x *request) coreLabels() (any, *Fault) {
	return coreChange(x, func(i *labelsItem) string { return i.ID },
		func(_ *request, r *record, i *labelsItem) *Fault { return i.relabel(r) })
}

// charge is an item of control.chargeCredits and checkCredits.
type charge struct {
	ID      string `json:"id"`
	Units   *int64 `json:"units"`
	Periods *int64 `json:"periods"` // nil: 1
}

// charged answers both: the licences whose products have too little credit, and those that were charged before.
type charged struct {
	Insufficient []ID `json:"insufficientFunds"`
	Duplicates   []ID `json:"duplicateCharges"`
}

// maxCost bounds what a charge may cost, so that no product of three numbers overflows.
const maxCost = 1 << 20

// credits says of which licences the credit would not cover a charge, and whether any charge would have to be paid.
func (x *request) credits() (out charged, paid bool, f *Fault) {
	out = charged{[]ID{}, []ID{}}
	items, f := bulk[charge](x)
	if f != nil {
		return out, false, f
	}
	for _, i := range items {
		r := x.may(i.ID, Edit)
		periods := int64(1)
		if i.Periods != nil {
			periods = *i.Periods
		}
		switch {
		case r == nil || x.elsewhere(r):
			return out, false, refuse(http.StatusNotFound, "Not found or permission denied")
		case i.Units == nil || *i.Units < 0 || *i.Units > maxCost || periods < 1 || periods > maxCost:
			return out, false,
				refuse(http.StatusBadRequest, "A charge needs units of 0 or more, and periods of 1 or more")
		}
		s := x.resolve(r.Product).settings
		switch {
		case s == nil || s.FreeToUse || *i.Units == 0 || s.Price == 0:
		case s.Balance == nil || *s.Balance/s.Price < *i.Units*periods:
			out.Insufficient = append(out.Insufficient, ID{i.ID})
		default:
			paid = true
		}
	}
	return out, paid, nil
}

func (x *request) checkCredits() (any, *Fault) {
	out, _, f := x.credits()
	if f != nil {
		return nil, f
	}
	return out, nil
}

// chargeCredits charges nothing: the balances of the configuration are no accounts. What is free costs nothing, what
// has too little credit is named, and any other charge is refused.
func (x *request) chargeCredits() (any, *Fault) {
	out, paid, f := x.credits()
	switch {
	case f != nil:
		return nil, f
	case paid:
		f := refuse(http.StatusBadRequest,
			"The agent keeps no accounts, and charges nothing; charge at UCloud's accounting")
		f.Code = new(ErrorNotSupported)
		return nil, f
	}
	return out, nil
}
