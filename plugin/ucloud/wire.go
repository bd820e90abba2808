package ucloud

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
)

// The states of a licence. There is no word for an expired or suspended one.
const (
	StatePreparing   = "PREPARING"
	StateReady       = "READY"
	StateUnavailable = "UNAVAILABLE"
)

// The kinds of a binding.
const (
	Bind   = "BIND"
	Unbind = "UNBIND"
)

// ErrorNotSupported is the error code of an answer that refuses what the agent does not do.
const ErrorNotSupported = "FEATURE_NOT_SUPPORTED_BY_PROVIDER"

// ErrorNoCredits is the error code of an answer that refuses a slot.
const ErrorNoCredits = "NOT_ENOUGH_LICENSE_CREDITS"

// ProductRef names a product.
type ProductRef struct {
	ID       string `json:"id"`
	Category string `json:"category"`
	Provider string `json:"provider"`
}

// License is a licence resource. Every key is always written: the older clients demand the keys without defaults.
type License struct {
	ID            string        `json:"id"`
	Specification Specification `json:"specification"`
	Owner         Owner         `json:"owner"`
	CreatedAt     int64         `json:"createdAt"` // ms
	Status        Status        `json:"status"`
	Updates       []Update      `json:"updates"`
	Permissions   *Permissions  `json:"permissions"`
	ProviderID    *string       `json:"providerGeneratedId,omitzero"` // only where there is one
}

// Specification is what a licence was made from.
type Specification struct {
	Product ProductRef        `json:"product"`
	Labels  map[string]string `json:"labels"` // of the newer generation
}

// Owner is who made a licence, in which project; nil: a personal workspace.
type Owner struct {
	CreatedBy string  `json:"createdBy"`
	Project   *string `json:"project"`
}

// Status is a licence's state and the jobs that hold a slot of it.
type Status struct {
	State           string   `json:"state"`
	ResolvedSupport *Support `json:"resolvedSupport"`
	ResolvedProduct *Product `json:"resolvedProduct"`
	BoundTo         []string `json:"boundTo"`
}

// Support is a product with what its provider supports.
type Support struct {
	Product Product        `json:"product"`
	Support LicenseSupport `json:"support"`
}

// LicenseSupport is what a provider supports of a product.
type LicenseSupport struct {
	Product     ProductRef   `json:"product"`
	Maintenance *Maintenance `json:"maintenance"`
}

// The availabilities during a maintenance.
const (
	MinorDisruption = "MINOR_DISRUPTION"
	MajorDisruption = "MAJOR_DISRUPTION"
	NoService       = "NO_SERVICE" // the product cannot be used
)

// Maintenance is announced for a product. Its times are ms.
type Maintenance struct {
	Description     string `json:"description"`
	Availability    string `json:"availability"`
	StartsAt        int64  `json:"startsAt"`
	EstimatedEndsAt *int64 `json:"estimatedEndsAt"`
}

// Product is the record of a product, in the documented form.
type Product struct {
	Balance                     *int64   `json:"balance"`
	Name                        string   `json:"name"`
	PricePerUnit                int64    `json:"pricePerUnit"`
	Category                    Category `json:"category"`
	Description                 string   `json:"description"`
	Priority                    int64    `json:"priority"`
	Tags                        []string `json:"tags"`
	Version                     int64    `json:"version"`
	FreeToUse                   bool     `json:"freeToUse"`
	AllowAllocationRequestsFrom string   `json:"allowAllocationRequestsFrom"`
	UnitOfPrice                 string   `json:"unitOfPrice"`
	ChargeType                  string   `json:"chargeType"`
	HiddenInGrantApplications   bool     `json:"hiddenInGrantApplications"`
	ProductType                 string   `json:"productType"`
	MaxUsableBalance            *int64   `json:"maxUsableBalance"`
	Type                        string   `json:"type"`
}

// Category names a product's category.
type Category struct {
	Name     string `json:"name"`
	Provider string `json:"provider"`
}

// Update is what a provider said of a licence. All parts but the timestamp are optional.
type Update struct {
	Timestamp int64    `json:"timestamp"` // ms
	State     *string  `json:"state"`
	Status    *string  `json:"status"`
	Binding   *Binding `json:"binding"`
}

// Binding binds a licence to a job, or unbinds it.
type Binding struct {
	Kind string `json:"kind"`
	Job  string `json:"job"`
}

// Permissions are the caller's own, and with includeOthers those of others.
type Permissions struct {
	Myself []string `json:"myself"`
	Others []Grant  `json:"others"`
}

// The permissions.
const (
	Read         = "READ"
	Edit         = "EDIT"
	Admin        = "ADMIN"    // cannot be granted
	ProviderRole = "PROVIDER" // likewise; also the role of a provider's token
)

// Grant is the permissions of an entity.
type Grant struct {
	Entity      Entity   `json:"entity"`
	Permissions []string `json:"permissions"`
}

// Entity is a user or a project's group.
type Entity struct {
	Type      string `json:"type"`
	Username  string `json:"username,omitzero"`
	ProjectID string `json:"projectId,omitzero"`
	Group     string `json:"group,omitzero"`
}

func (e Entity) good() bool {
	switch e.Type {
	case "user":
		return e.Username != "" && len(e.Username) <= maxName
	case "project_group":
		return e.ProjectID != "" && e.Group != "" && len(e.ProjectID)+len(e.Group) <= maxName
	default:
		return false
	}
}

// Page is a page of a list (PageV2). Only a nil Next ends the list.
type Page[T any] struct {
	ItemsPerPage int     `json:"itemsPerPage"`
	Items        []T     `json:"items"`
	Next         *string `json:"next"`
}

// Bulk is a request about several things.
type Bulk[T any] struct {
	Items []T `json:"items"`
}

// Responses are the answers to a Bulk, in its order.
type Responses[T any] struct {
	Responses []T `json:"responses"`
}

// ID is a request or an answer that names a licence.
type ID struct {
	ID string `json:"id"`
}

// Empty is the answer that says nothing. No answer lacks a body: clients take that for a broken one.
type Empty struct{}

// Fault is the answer that refuses, in the form that both generations of clients read.
type Fault struct {
	Status int     `json:"statusCode"`
	Why    string  `json:"why"`
	Code   *string `json:"errorCode"`
}

// Error returns the status and the reason.
func (f *Fault) Error() string { return strconv.Itoa(f.Status) + ": " + f.Why }

func refuse(status int, why string) *Fault { return &Fault{Status: status, Why: why} }

var (
	errBad  = refuse(http.StatusBadRequest, "Invalid request supplied")
	errGone = refuse(http.StatusNotFound, "Not found")
)

// decode reads a body. The form of the request's Content-Type does not matter: the documentation's own is malformed.
func decode(b []byte, to any) *Fault {
	if err := json.Unmarshal(b, to); err != nil || string(b) == "null" {
		return errBad
	}
	return nil
}
