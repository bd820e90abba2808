package ucloud

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// flags are the flags and filters of a request. All filters that are given must match.
type flags struct {
	IncludeOthers  bool `json:"includeOthers"`
	IncludeUpdates bool `json:"includeUpdates"`
	IncludeSupport bool `json:"includeSupport"`
	IncludeProduct bool `json:"includeProduct"`

	CreatedBy       *string `json:"filterCreatedBy"`
	CreatedAfter    *int64  `json:"filterCreatedAfter"` // ms, inclusive
	CreatedBefore   *int64  `json:"filterCreatedBefore"`
	Provider        *string `json:"filterProvider"`
	ProductID       *string `json:"filterProductId"`
	ProductCategory *string `json:"filterProductCategory"`
	ProviderIDs     *string `json:"filterProviderIds"` // with commas between
	IDs             *string `json:"filterIds"`
	HideProductID   *string `json:"hideProductId"`
	HideCategory    *string `json:"hideProductCategory"`
	HideProvider    *string `json:"hideProvider"`

	Labels map[string]string `json:"filterLabels"` // of the newer generation
}

// paging is which part of a list is asked for, in which order.
type paging struct {
	ItemsPerPage int    `json:"itemsPerPage"`
	Next         string `json:"next"`
	ItemsToSkip  int64  `json:"itemsToSkip"`
	SortBy       string `json:"sortBy"`
	Direction    string `json:"sortDirection"`
}

// query reads flags and paging from a query.
func query(q url.Values) (f flags, p paging, fault *Fault) {
	for name, to := range map[string]*bool{"includeOthers": &f.IncludeOthers, "includeUpdates": &f.IncludeUpdates,
		"includeSupport": &f.IncludeSupport, "includeProduct": &f.IncludeProduct} {
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return f, p, errBad
			}
			*to = b
		}
	}
	for name, to := range map[string]**string{"filterCreatedBy": &f.CreatedBy, "filterProvider": &f.Provider,
		"filterProductId": &f.ProductID, "filterProductCategory": &f.ProductCategory,
		"filterProviderIds": &f.ProviderIDs, "filterIds": &f.IDs, "hideProductId": &f.HideProductID,
		"hideProductCategory": &f.HideCategory, "hideProvider": &f.HideProvider} {
		if v := q.Get(name); v != "" {
			*to = &v
		}
	}
	for name, to := range map[string]**int64{"filterCreatedAfter": &f.CreatedAfter,
		"filterCreatedBefore": &f.CreatedBefore} {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return f, p, errBad
			}
			*to = &n
		}
	}
	for name := range q {
		if key, ok := strings.CutPrefix(name, "filterLabels."); ok {
			if f.Labels == nil {
				f.Labels = map[string]string{}
			}
			f.Labels[key] = q.Get(name)
		}
	}
	p = paging{Next: q.Get("next"), SortBy: q.Get("sortBy"), Direction: q.Get("sortDirection")}
	if v := q.Get("itemsPerPage"); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return f, p, errBad
		}
		p.ItemsPerPage = int(n)
	}
	if v := q.Get("itemsToSkip"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return f, p, errBad
		}
		p.ItemsToSkip = n
	}
	return f, p, nil
}

// lets reports whether a licence passes the filters.
func (f *flags) lets(r *record) bool {
	is := func(want *string, have string) bool { return want == nil || *want == have }
	among := func(list *string, have string) bool {
		return list == nil || slices.ContainsFunc(strings.Split(*list, ","),
			func(s string) bool { return strings.TrimSpace(s) == have })
	}
	hidden := func(hide *string, have string) bool { return hide != nil && *hide == have }
	for k, v := range f.Labels {
		if have, ok := r.Labels[k]; !ok || have != v {
			return false
		}
	}
	p := r.Product
	return is(f.CreatedBy, r.CreatedBy) && is(f.Provider, p.Provider) && is(f.ProductID, p.ID) &&
		is(f.ProductCategory, p.Category) && among(f.IDs, r.id()) &&
		(f.ProviderIDs == nil || r.Generated != "" && among(f.ProviderIDs, r.Generated)) &&
		(f.CreatedAfter == nil || r.CreatedAt >= *f.CreatedAfter) &&
		(f.CreatedBefore == nil || r.CreatedAt <= *f.CreatedBefore) &&
		!hidden(f.HideProductID, p.ID) && !hidden(f.HideCategory, p.Category) && !hidden(f.HideProvider, p.Provider)
}

func (x *request) retrieve() (any, *Fault) {
	f, _, fault := query(x.r.URL.Query())
	if fault != nil {
		return nil, fault
	}
	r := x.may(x.r.URL.Query().Get("id"), Read)
	if r == nil || !f.lets(r) || x.elsewhere(r) {
		return nil, errGone
	}
	return x.view(r, &f), nil
}

func (x *request) browse() (any, *Fault) {
	f, p, fault := query(x.r.URL.Query())
	if fault != nil {
		return nil, fault
	}
	return x.page(&f, p, "")
}

// search takes the flags in a member of their own, or flattened beside the query.
func (x *request) search() (any, *Fault) {
	var in struct {
		flags
		paging
		Nested *flags         `json:"flags"`
		Query  string         `json:"query"`
		Rest   jsontext.Value `json:",unknown"`
	}
	if f := decode(x.body, &in); f != nil {
		return nil, f
	}
	f := in.flags
	if in.Nested != nil {
		f = *in.Nested
	}
	return x.page(&f, in.paging, in.Query)
}

// elsewhere reports whether a provider's caller asks for a licence of another provider.
func (x *request) elsewhere(r *record) bool {
	return x.who.role == ProviderRole && r.Product.Provider != x.provider()
}

// visible returns the licences that the caller may see, by id.
func (x *request) visible(f *flags, text string) []*record {
	text = strings.ToLower(text)
	return slices.DeleteFunc(x.all(), func(r *record) bool {
		p := r.Product
		found := text == "" || slices.ContainsFunc([]string{r.id(), p.ID, p.Category, p.Provider, r.CreatedBy},
			func(s string) bool { return strings.Contains(strings.ToLower(s), text) })
		return !found || !f.lets(r) || x.elsewhere(r) || !slices.Contains(x.permissions(r), Read)
	})
}

// sizes are the sizes that a page may have.
var sizes = []int{10, 25, 50, 100, 250, 1000}

// page returns a page of the licences that the caller may see. In the usual order, by id, next is the last id shown, so
// that a licence deleted meanwhile hides no other. With sortBy it is an offset. A next that cannot be read counts as 0.
func (x *request) page(f *flags, p paging, text string) (any, *Fault) {
	if p.ItemsToSkip < 0 {
		return nil, refuse(http.StatusBadRequest, "Invalid offset")
	}
	if !slices.Contains(sizes, p.ItemsPerPage) {
		p.ItemsPerPage = 50
	}
	all := x.visible(f, text)
	sorted := p.SortBy == "createdAt" || p.SortBy == "createdBy"
	down := strings.HasPrefix(strings.ToLower(p.Direction), "desc")
	slices.SortStableFunc(all, func(a, b *record) int {
		c := cmp.Compare(a.ID, b.ID)
		switch p.SortBy {
		case "createdAt":
			c = cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), c)
		case "createdBy":
			c = cmp.Or(cmp.Compare(a.CreatedBy, b.CreatedBy), c)
		}
		if down {
			return -c
		}
		return c
	})
	last, err := strconv.ParseInt(p.Next, 10, 64)
	if err != nil || last < 0 {
		last = 0
	}
	at := int64(0)
	switch {
	case last == 0:
	case sorted:
		at = min(last, int64(len(all)))
	default:
		at = int64(len(all))
		if i := slices.IndexFunc(all, func(r *record) bool {
			return r.ID > last && !down || r.ID < last && down
		}); i >= 0 {
			at = int64(i)
		}
	}
	at = min(at+p.ItemsToSkip, int64(len(all)))
	end := min(at+int64(p.ItemsPerPage), int64(len(all)))
	out := Page[License]{ItemsPerPage: p.ItemsPerPage, Items: []License{}}
	for _, r := range all[at:end] {
		out.Items = append(out.Items, x.view(r, f))
	}
	if end < int64(len(all)) {
		next := strconv.FormatInt(end, 10)
		if !sorted {
			next = all[end-1].id()
		}
		out.Next = &next
	}
	return out, nil
}

// view returns a licence as the caller sees it.
func (x *request) view(r *record, f *flags) License {
	l := License{ID: r.id(), CreatedAt: r.CreatedAt, Owner: Owner{CreatedBy: r.CreatedBy}, Updates: []Update{},
		Specification: Specification{r.Product, r.Labels},
		Status:        Status{State: x.state(r), BoundTo: []string{}}}
	if l.Specification.Labels == nil {
		l.Specification.Labels = map[string]string{}
	}
	if r.Project != "" {
		l.Owner.Project = &r.Project
	}
	if r.Generated != "" {
		l.ProviderID = &r.Generated
	}
	l.Status.BoundTo = append(l.Status.BoundTo, x.boundTo(r)...)
	if f.IncludeUpdates {
		l.Updates = append(l.Updates, r.Updates...)
	}
	if f.IncludeProduct || f.IncludeSupport {
		o := x.resolve(r.Product)
		l.Status.ResolvedProduct = new(o.product())
		if f.IncludeSupport {
			l.Status.ResolvedSupport = &Support{o.product(), o.support()}
		}
	}
	if f.IncludeOthers {
		l.Permissions = &Permissions{Myself: x.permissions(r), Others: append([]Grant{}, r.Grants...)}
	}
	return l
}

// data is what the dialect keeps on a lease.
type data struct {
	License int64  `json:"license"`
	Job     string `json:"job"`
}

func (d data) encode() []byte {
	b, _ := json.Marshal(d) // a struct of a number and a text
	return b
}
