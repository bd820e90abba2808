package ucloud

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/plugin"
)

// labelJob is the label that binds a licence to a job when it is made. A lease that holds a job's slot bears it, too.
const labelJob = "job"

// labelLicense is the label of a lease that names the licence whose slot it holds.
const labelLicense = "license"

// newLicense is an item of create and of control.register.
type newLicense struct {
	Product *ProductRef       `json:"product"`
	Labels  map[string]string `json:"labels"`
}

// registration is an item of control.register.
type registration struct {
	Spec      newLicense `json:"spec"`
	Generated string     `json:"providerGeneratedId"`
	CreatedBy *string    `json:"createdBy"`
	Project   *string    `json:"project"`
	AllRead   bool       `json:"projectAllRead"`
	AllWrite  bool       `json:"projectAllWrite"`
}

// create makes licences, all or none. One with the label job is bound to that job, and holds a slot from the start.
func (x *request) create() (any, *Fault) {
	items, f := bulk[newLicense](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	var made []*record
	for _, item := range items {
		r, f := x.make(item)
		if f != nil {
			return nil, f
		}
		r.CreatedBy, r.Project = x.who.name, x.who.project
		made = append(made, r)
	}
	return x.add(made)
}

// make returns a new licence without an id and an owner.
func (x *request) make(item newLicense) (*record, *Fault) {
	if item.Product == nil {
		return nil, refuse(http.StatusBadRequest, "Resource does not specify a product")
	}
	if _, f := x.usable(*item.Product); f != nil {
		return nil, f
	}
	if f := checkLabels(item.Labels); f != nil {
		return nil, f
	}
	now := ms(x.Now())
	return &record{Product: *item.Product, CreatedAt: now, State: StateReady, Labels: item.Labels,
		Updates: []Update{{Timestamp: now, State: new(StateReady), Status: new("License is ready for use")}}}, nil
}

func checkLabels(labels map[string]string) *Fault {
	if len(labels) > maxLabels {
		return refuse(http.StatusBadRequest, "A licence may have 16 labels")
	}
	for k, v := range labels {
		if k == "" || len(k) > maxName || len(v) > maxName {
			return refuse(http.StatusBadRequest, "A label is empty or longer than 256 bytes")
		}
	}
	if job, ok := labels[labelJob]; ok && !jobName(job) {
		return refuse(http.StatusBadRequest, "The label job must be a job's id in digits")
	}
	return nil
}

// add stores new licences and binds those that name a job. The caller holds making.
func (x *request) add(made []*record) (any, *Fault) {
	total, owned := 0, map[string]int{}
	for _, r := range x.all() {
		total++
		owned[r.CreatedBy]++
	}
	first, used := x.next(len(made))
	out := Responses[ID]{}
	for i, r := range made {
		// Nobody may have more than is left for all others.
		if n := owned[r.CreatedBy]; n >= maxOwned || n > (plugin.MaxStoreKeys-total)/2 {
			return nil, refuse(http.StatusInsufficientStorage, "There are too many licences; delete some")
		}
		owned[r.CreatedBy]++
		total++
		r.ID = first + int64(i)
		out.Responses = append(out.Responses, ID{r.id()})
	}
	if f := x.save(made, used); f != nil {
		return nil, f
	}
	for _, r := range made {
		job, ok := r.Labels[labelJob]
		if !ok {
			continue
		}
		f := x.bind(r, job)
		if f == nil {
			r.Updates = append(r.Updates, Update{Timestamp: ms(x.Now()), Binding: &Binding{Bind, job}})
			f = x.save([]*record{r})
		}
		if f != nil {
			x.undoAll()
			x.forget(made)
			return nil, f
		}
	}
	return out, nil
}

// forget takes licences out of the store.
func (x *request) forget(list []*record) *Fault {
	var changes []plugin.Change
	for _, r := range list {
		changes = append(changes, plugin.Change{Key: r.key()})
	}
	return x.apply(changes)
}

// delete ends licences, all or none, and gives their slots back.
func (x *request) delete() (any, *Fault) {
	items, f := bulk[ID](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	list, f := x.several(ids(items, func(i ID) string { return i.ID }), Edit)
	if f != nil {
		return nil, f
	}
	for _, r := range list {
		if f := x.unbind(r, ""); f != nil {
			return nil, f
		}
	}
	if f := x.forget(list); f != nil {
		return nil, f
	}
	return Responses[Empty]{make([]Empty, len(list))}, nil
}

func ids[T any](items []T, of func(T) string) (out []string) {
	for _, i := range items {
		out = append(out, of(i))
	}
	return out
}

// aclItem is an item of updateAcl. Lists may be null.
type aclItem struct {
	ID      string   `json:"id"`
	Added   []Grant  `json:"added"`
	Deleted []Entity `json:"deleted"`
}

func (i *aclItem) check() *Fault {
	bad := refuse(http.StatusForbidden, "Bad ACL update supplied")
	for _, g := range i.Added {
		if !g.Entity.good() || len(g.Permissions) == 0 || slices.ContainsFunc(g.Permissions,
			func(p string) bool { return p != Read && p != Edit }) {
			return bad
		}
	}
	for _, e := range i.Deleted {
		if !e.good() {
			return bad
		}
	}
	return nil
}

// share changes with whom a licence is shared. What is deleted goes first.
func (i *aclItem) share(r *record) *Fault {
	if f := i.check(); f != nil {
		return f
	}
	drop := func(e Entity) {
		r.Grants = slices.DeleteFunc(r.Grants, func(g Grant) bool { return g.Entity == e })
	}
	for _, e := range i.Deleted {
		drop(e)
	}
	for _, g := range i.Added {
		drop(g.Entity)
		slices.Sort(g.Permissions)
		r.Grants = append(r.Grants, Grant{g.Entity, slices.Compact(g.Permissions)})
	}
	if len(r.Grants) > maxGrants {
		return refuse(http.StatusBadRequest, "A licence may be shared with 32 entities")
	}
	return nil
}

// updateACL changes with whom licences are shared.
func (x *request) updateACL() (any, *Fault) {
	items, f := bulk[aclItem](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	list, f := x.several(ids(items, func(i aclItem) string { return i.ID }), Admin)
	if f != nil {
		return nil, f
	}
	for i, r := range list {
		if f := items[i].share(r); f != nil {
			return nil, f
		}
	}
	if f := x.save(list); f != nil {
		return nil, f
	}
	return Responses[Empty]{make([]Empty, len(list))}, nil
}

// labelsItem is an item of updateLabels. Labels of null are none: newer clients write an empty map so. Without the
// member nothing says what the labels become.
type labelsItem struct {
	ID     string         `json:"id"`
	Labels jsontext.Value `json:"labels"`
}

// relabel replaces a licence's labels. The label job, which holds a slot, stays as it is.
func (i *labelsItem) relabel(r *record) *Fault {
	var labels map[string]string
	if len(i.Labels) == 0 || json.Unmarshal(i.Labels, &labels) != nil {
		return refuse(http.StatusBadRequest, "An item needs its labels, texts by name")
	}
	if f := checkLabels(labels); f != nil {
		return f
	}
	was, had := r.Labels[labelJob]
	if is, has := labels[labelJob]; has && (!had || is != was) {
		return refuse(http.StatusBadRequest, "The label job binds a licence when it is made; it cannot change")
	}
	if had {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelJob] = was
	}
	r.Labels = labels
	return nil
}

// updateLabels replaces labels. The label job, which holds a slot, stays as it is.
func (x *request) updateLabels() (any, *Fault) {
	items, f := bulk[labelsItem](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	list, f := x.several(ids(items, func(i labelsItem) string { return i.ID }), Edit)
	if f != nil {
		return nil, f
	}
	for i, r := range list {
		if f := items[i].relabel(r); f != nil {
			return nil, f
		}
	}
	if f := x.save(list); f != nil {
		return nil, f
	}
	return Empty{}, nil
}

// register makes licences that the provider has. One with a providerGeneratedId that is known is the same licence.
func (x *request) register() (any, *Fault) {
	if !x.provides() {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	items, f := bulk[registration](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	known := map[string]string{}
	for _, r := range x.all() {
		if r.Generated != "" {
			known[r.Generated] = r.id()
		}
	}
	var made []*record
	at := make([]int, len(items)) // the place in made; -1: it is known
	for i, item := range items {
		if at[i] = -1; known[item.Generated] != "" {
			continue
		}
		r, f := x.registered(item)
		if f != nil {
			return nil, f
		}
		if j := slices.IndexFunc(made, func(m *record) bool {
			return m.Generated != "" && m.Generated == r.Generated
		}); j >= 0 {
			at[i] = j
			continue
		}
		at[i] = len(made)
		made = append(made, r)
	}
	if len(made) > 0 {
		if _, f := x.add(made); f != nil {
			return nil, f
		}
	}
	out := Responses[ID]{}
	for i, item := range items {
		id := known[item.Generated]
		if at[i] >= 0 {
			id = made[at[i]].id()
		}
		out.Responses = append(out.Responses, ID{id})
	}
	return out, nil
}

// registered returns the licence of an item of register, without an id.
func (x *request) registered(item registration) (*record, *Fault) {
	if p := item.Spec.Product; p != nil && p.Provider != x.provider() {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	if strings.Contains(item.Generated, ",") || len(item.Generated) > maxName {
		return nil, refuse(http.StatusBadRequest, "A providerGeneratedId has no comma and at most 256 bytes")
	}
	r, f := x.make(item.Spec)
	if f != nil {
		return nil, f
	}
	r.Generated, r.CreatedBy = item.Generated, "_ucloud"
	if item.CreatedBy != nil && *item.CreatedBy != "" {
		r.CreatedBy = clip(*item.CreatedBy, maxName)
	}
	if item.Project != nil {
		r.Project = clip(*item.Project, maxName)
	}
	if item.AllRead || item.AllWrite {
		r.All = append(r.All, Read)
	}
	if item.AllWrite {
		r.All = append(r.All, Edit)
	}
	return r, nil
}
