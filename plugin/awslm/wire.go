package awslm

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// The wire protocol, AWS JSON 1.1: POST /, one JSON object each way, the operation in the header X-Amz-Target.
const (
	ContentType  = "application/x-amz-json-1.1"
	TargetHeader = "X-Amz-Target"
	TargetPrefix = "AWSLicenseManager." // and then the operation
	// RequestIDHeader has the id that SDKs show in their errors.
	RequestIDHeader = "X-Amzn-RequestId"
	// ErrorTypeHeader must equal the body's __type: SDKs differ in which of the two they use.
	ErrorTypeHeader = "X-Amzn-ErrorType"
)

// The operations of consumption.
const (
	OpCheckout       = "CheckoutLicense"
	OpBorrow         = "CheckoutBorrowLicense"
	OpExtend         = "ExtendLicenseConsumption"
	OpCheckIn        = "CheckInLicense"
	OpGetAccessToken = "GetAccessToken"
	OpGetLicense     = "GetLicense"
	OpGetUsage       = "GetLicenseUsage"
	OpListReceived   = "ListReceivedLicenses"
)

// The error codes, with their suffix on the wire.
const (
	ErrAccessDenied         = "AccessDeniedException"
	ErrAuthorization        = "AuthorizationException"
	ErrConflict             = "ConflictException"
	ErrEntitlementNot       = "EntitlementNotAllowedException"
	ErrInvalidParameter     = "InvalidParameterValueException"
	ErrNoEntitlements       = "NoEntitlementsAllowedException"
	ErrRateLimit            = "RateLimitExceededException"
	ErrRedirect             = "RedirectException"
	ErrResourceLimit        = "ResourceLimitExceededException"
	ErrResourceNotFound     = "ResourceNotFoundException"
	ErrServerInternal       = "ServerInternalException"
	ErrUnsupportedSignature = "UnsupportedDigitalSignatureMethodException"
	ErrValidation           = "ValidationException"
	ErrUnknownOperation     = "UnknownOperationException" // the API has no such operation
)

// declared lists the errors of each operation, apart from those that all may answer. An undeclared error reaches an
// SDK's caller without its type.
var declared = map[string][]string{
	OpCheckout: {ErrInvalidParameter, ErrNoEntitlements, ErrRedirect, ErrResourceNotFound,
		ErrUnsupportedSignature},
	OpBorrow: {ErrInvalidParameter, ErrNoEntitlements, ErrRedirect, ErrResourceNotFound,
		ErrUnsupportedSignature, ErrEntitlementNot},
	OpExtend:         {ErrInvalidParameter, ErrResourceNotFound},
	OpCheckIn:        {ErrInvalidParameter, ErrResourceNotFound, ErrConflict},
	OpGetAccessToken: {},
	OpGetLicense:     {ErrInvalidParameter},
	OpGetUsage:       {ErrInvalidParameter},
	OpListReceived:   {ErrInvalidParameter, ErrResourceLimit},
}

// Declared reports whether an operation may answer with an error code.
func Declared(operation, code string) bool {
	own, ok := declared[operation]
	return ok && (slices.Contains(own, code) || slices.Contains([]string{ErrAccessDenied, ErrAuthorization,
		ErrRateLimit, ErrServerInternal, ErrValidation}, code))
}

// Fault is an error of the API.
type Fault struct {
	Code    string `json:"__type"`
	Message string `json:"Message"`
}

// Error returns the code and the message.
func (f *Fault) Error() string { return f.Code + ": " + f.Message }

// Status returns the HTTP status: 500 for ErrServerInternal, 400 for all others.
func (f *Fault) Status() int {
	if f.Code == ErrServerInternal {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

func invalid(format string, args ...any) *Fault {
	return &Fault{ErrValidation, fmt.Sprintf(format, args...)}
}

// The values of CheckoutType, DigitalSignatureMethod and RenewType.
const (
	Provisional  = "PROVISIONAL"
	Perpetual    = "PERPETUAL"
	MethodPS384  = "JWT_PS384"
	RenewNone    = "None"
	RenewWeekly  = "Weekly"
	RenewMonthly = "Monthly"
)

// The statuses of a licence that can be consumed.
const (
	StatusAvailable = "AVAILABLE"
	ReceivedActive  = "ACTIVE"
)

// EntitlementData is one entitlement in a checkout's request or answer. Value is a decimal number as text, and absent
// with Unit None.
type EntitlementData struct {
	Name  string `json:"Name"`
	Value string `json:"Value,omitzero"`
	Unit  string `json:"Unit"`
}

// Metadata is a name with a value.
type Metadata struct {
	Name  string `json:"Name"`
	Value string `json:"Value"`
}

// CheckoutRequest is the request of CheckoutLicense.
type CheckoutRequest struct {
	ProductSKU     string            `json:"ProductSKU"`
	CheckoutType   string            `json:"CheckoutType"`
	KeyFingerprint string            `json:"KeyFingerprint"`
	Entitlements   []EntitlementData `json:"Entitlements"`
	ClientToken    string            `json:"ClientToken"`
	Beneficiary    string            `json:"Beneficiary,omitzero"`
	NodeID         string            `json:"NodeId,omitzero"`
}

// CheckoutResponse answers CheckoutLicense. Times have no zone and are UTC: see [LocalTime].
type CheckoutResponse struct {
	CheckoutType            string            `json:"CheckoutType"`
	LicenseArn              string            `json:"LicenseArn"`
	LicenseConsumptionToken string            `json:"LicenseConsumptionToken"`
	EntitlementsAllowed     []EntitlementData `json:"EntitlementsAllowed"`
	SignedToken             string            `json:"SignedToken,omitzero"`
	NodeID                  string            `json:"NodeId,omitzero"`
	IssuedAt                string            `json:"IssuedAt"`
	Expiration              string            `json:"Expiration"`
}

// BorrowRequest is the request of CheckoutBorrowLicense.
type BorrowRequest struct {
	LicenseArn             string            `json:"LicenseArn"`
	Entitlements           []EntitlementData `json:"Entitlements"`
	DigitalSignatureMethod string            `json:"DigitalSignatureMethod"`
	ClientToken            string            `json:"ClientToken"`
	NodeID                 string            `json:"NodeId,omitzero"`
	CheckoutMetadata       []Metadata        `json:"CheckoutMetadata,omitzero"`
}

// BorrowResponse answers CheckoutBorrowLicense. Times as in [CheckoutResponse].
type BorrowResponse struct {
	LicenseArn              string            `json:"LicenseArn"`
	LicenseConsumptionToken string            `json:"LicenseConsumptionToken"`
	EntitlementsAllowed     []EntitlementData `json:"EntitlementsAllowed"`
	SignedToken             string            `json:"SignedToken"`
	NodeID                  string            `json:"NodeId,omitzero"`
	IssuedAt                string            `json:"IssuedAt"`
	Expiration              string            `json:"Expiration"`
	CheckoutMetadata        []Metadata        `json:"CheckoutMetadata,omitzero"`
}

// ExtendRequest is the request of ExtendLicenseConsumption.
type ExtendRequest struct {
	LicenseConsumptionToken string `json:"LicenseConsumptionToken"`
	DryRun                  bool   `json:"DryRun,omitzero"`
}

// ExtendResponse answers ExtendLicenseConsumption. Expiration has a zone: see [ZonedTime].
type ExtendResponse struct {
	LicenseConsumptionToken string `json:"LicenseConsumptionToken"`
	Expiration              string `json:"Expiration"`
}

// CheckInRequest is the request of CheckInLicense. The answer is an empty object.
type CheckInRequest struct {
	LicenseConsumptionToken string `json:"LicenseConsumptionToken"`
	Beneficiary             string `json:"Beneficiary,omitzero"`
}

// AccessTokenRequest is the request of GetAccessToken. Token is a secret.
type AccessTokenRequest struct {
	Token           string   `json:"Token"`
	TokenProperties []string `json:"TokenProperties,omitzero"`
}

// AccessTokenResponse answers GetAccessToken.
type AccessTokenResponse struct {
	AccessToken string `json:"AccessToken"`
}

// LicenseRequest is the request of GetLicense and, without Version, of GetLicenseUsage.
type LicenseRequest struct {
	LicenseArn string `json:"LicenseArn"`
	Version    string `json:"Version,omitzero"`
}

// LicenseResponse answers GetLicense.
type LicenseResponse struct {
	License License `json:"License"`
}

// UsageResponse answers GetLicenseUsage.
type UsageResponse struct {
	LicenseUsage struct {
		EntitlementUsages []EntitlementUsage `json:"EntitlementUsages"`
	} `json:"LicenseUsage"`
}

// EntitlementUsage is how much of an entitlement is consumed. Both figures are decimal numbers as text.
type EntitlementUsage struct {
	Name          string `json:"Name"`
	ConsumedValue string `json:"ConsumedValue"`
	MaxCount      string `json:"MaxCount,omitzero"`
	Unit          string `json:"Unit"`
}

// ListRequest is the request of ListReceivedLicenses.
type ListRequest struct {
	LicenseArns []string `json:"LicenseArns,omitzero"`
	Filters     []Filter `json:"Filters,omitzero"`
	MaxResults  *int     `json:"MaxResults,omitzero"`
	NextToken   string   `json:"NextToken,omitzero"`
}

// Filter is a member's name and the values that pass.
type Filter struct {
	Name   string   `json:"Name"`
	Values []string `json:"Values"`
}

// The names of ListReceivedLicenses' filters.
const (
	FilterSKU         = "ProductSKU"
	FilterStatus      = "Status"
	FilterFingerprint = "Fingerprint"
	FilterIssuer      = "IssuerName"
	FilterBeneficiary = "Beneficiary"
)

// ListResponse answers ListReceivedLicenses.
type ListResponse struct {
	Licenses  []License `json:"Licenses"`
	NextToken string    `json:"NextToken,omitzero"`
}

// License is a licence in the answer of GetLicense or, with ReceivedMetadata, of ListReceivedLicenses.
type License struct {
	LicenseArn               string                   `json:"LicenseArn"`
	LicenseName              string                   `json:"LicenseName,omitzero"`
	ProductName              string                   `json:"ProductName,omitzero"`
	ProductSKU               string                   `json:"ProductSKU"`
	Issuer                   Issuer                   `json:"Issuer"`
	HomeRegion               string                   `json:"HomeRegion,omitzero"`
	Status                   string                   `json:"Status"`
	Validity                 Validity                 `json:"Validity,omitzero"`
	Beneficiary              string                   `json:"Beneficiary,omitzero"`
	Entitlements             []Entitlement            `json:"Entitlements"`
	ConsumptionConfiguration ConsumptionConfiguration `json:"ConsumptionConfiguration,omitzero"`
	LicenseMetadata          []Metadata               `json:"LicenseMetadata,omitzero"`
	CreateTime               string                   `json:"CreateTime,omitzero"`
	Version                  string                   `json:"Version,omitzero"`
	ReceivedMetadata         *ReceivedMetadata        `json:"ReceivedMetadata,omitzero"`
}

// Issuer is the issuer of a licence. KeyFingerprint is no hash: it names account and issuer.
type Issuer struct {
	Name           string `json:"Name,omitzero"`
	SignKey        string `json:"SignKey,omitzero"`
	KeyFingerprint string `json:"KeyFingerprint,omitzero"`
}

// Validity is the time in which a licence is good. Without End it is good for ever.
type Validity struct {
	Begin string `json:"Begin,omitzero"`
	End   string `json:"End,omitzero"`
}

// Entitlement is one term of a licence: MaxCount of a unit, or with Unit None a Value.
type Entitlement struct {
	Name         string `json:"Name"`
	Value        string `json:"Value,omitzero"`
	MaxCount     *int64 `json:"MaxCount,omitzero"`
	Overage      bool   `json:"Overage"`
	Unit         string `json:"Unit"`
	AllowCheckIn bool   `json:"AllowCheckIn"`
}

// ConsumptionConfiguration lists the ways to check a licence out. It permits no way whose block is missing.
type ConsumptionConfiguration struct {
	RenewType                string       `json:"RenewType,omitzero"`
	ProvisionalConfiguration *Consumption `json:"ProvisionalConfiguration,omitzero"`
	BorrowConfiguration      *Consumption `json:"BorrowConfiguration,omitzero"`
}

// Consumption is one way of checking out.
type Consumption struct {
	AllowEarlyCheckIn      *bool `json:"AllowEarlyCheckIn,omitzero"` // of a borrow, which always states it
	MaxTimeToLiveInMinutes int64 `json:"MaxTimeToLiveInMinutes"`
}

// ReceivedMetadata is the grant of a received licence.
type ReceivedMetadata struct {
	ReceivedStatus       string   `json:"ReceivedStatus,omitzero"`
	ReceivedStatusReason string   `json:"ReceivedStatusReason,omitzero"`
	AllowedOperations    []string `json:"AllowedOperations,omitzero"`
}

// Decode reads a request. It ignores unknown members, as the service does, and rejects a member named twice.
func Decode[T any](body []byte) (*T, *Fault) {
	out := new(T)
	if len(strings.TrimSpace(string(body))) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return nil, invalid("The request is not the JSON of this operation: %v",
			plugin.JSONFault(err, "member"))
	}
	return out, nil
}

// required returns the first fault of required members, given as name and value in turn.
func required(members ...string) *Fault {
	for i := 0; i < len(members); i += 2 {
		if members[i+1] == "" {
			return invalid("%s must not be null or empty.", members[i])
		}
	}
	return nil
}

func clientToken(s string) *Fault {
	if s == "" || len(s) > 2048 || strings.ContainsFunc(s, unicode.IsSpace) {
		return invalid("ClientToken must have 1 to 2048 characters and no white space.")
	}
	return nil
}

// arn checks the form arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE, of any partition of AWS.
func arn(s string) *Fault {
	parts := strings.SplitN(s, ":", 6)
	ok := len(s) <= 2048 && len(parts) == 6 && parts[0] == "arn" &&
		(parts[1] == "aws" || strings.HasPrefix(parts[1], "aws-")) && parts[2] != "" &&
		parts[5] != "" && !strings.ContainsFunc(parts[5], unicode.IsSpace)
	for i := 1; ok && i < 5; i++ {
		ok = len(parts[i]) <= 63 && strings.Trim(parts[i], "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if !ok {
		return invalid("LicenseArn is not the ARN of a licence.")
	}
	return nil
}

// entitlements checks the entitlements of a checkout: at least one, each name once, quantities that can be counted.
func entitlements(list []EntitlementData) *Fault {
	if len(list) == 0 {
		return invalid("Entitlements must name at least one entitlement.")
	}
	seen := map[string]bool{}
	for i, e := range list {
		kind := KindOf(e.Unit)
		switch {
		case e.Name == "":
			return invalid("Entitlements[%d].Name must not be null or empty.", i)
		case seen[e.Name]:
			return invalid("Entitlements name %q twice.", plugin.Short(e.Name))
		case kind == "":
			return invalid("Entitlements[%d].Unit is none of the units of the API.", i)
		case kind == KindFeature && e.Value != "":
			return invalid("Entitlements[%d].Value must be absent with the unit None.", i)
		case kind != KindFeature:
			if _, err := ParseValue(e.Value); err != nil {
				return invalid("Entitlements[%d].Value %v.", i, err)
			}
		}
		seen[e.Name] = true
	}
	return nil
}

// ParseValue reads a quantity: a decimal whole number from 0 to 2^63-1 without sign, exponent or fraction.
func ParseValue(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("must be a decimal number of at least 0")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("is too large")
	}
	return n, nil
}

// Validate returns the first fault of the request; nil: it has none.
func (r *CheckoutRequest) Validate() *Fault {
	if f := required("ProductSKU", r.ProductSKU, "CheckoutType", r.CheckoutType, "KeyFingerprint", r.KeyFingerprint,
		"ClientToken", r.ClientToken); f != nil {
		return f
	}
	if r.CheckoutType != Provisional && r.CheckoutType != Perpetual {
		return invalid("CheckoutType must be %s or %s.", Provisional, Perpetual)
	}
	if f := clientToken(r.ClientToken); f != nil {
		return f
	}
	return entitlements(r.Entitlements)
}

// Validate returns the first fault of the request; nil: it has none.
func (r *BorrowRequest) Validate() *Fault {
	if f := required("LicenseArn", r.LicenseArn, "DigitalSignatureMethod", r.DigitalSignatureMethod, "ClientToken",
		r.ClientToken); f != nil {
		return f
	}
	if r.DigitalSignatureMethod != MethodPS384 {
		return &Fault{ErrUnsupportedSignature, "DigitalSignatureMethod must be " + MethodPS384 + "."}
	}
	seen := map[string]bool{}
	for i, m := range r.CheckoutMetadata {
		if m.Name == "" || seen[m.Name] {
			return invalid("CheckoutMetadata[%d].Name is empty, or named twice.", i)
		}
		seen[m.Name] = true
	}
	for _, f := range []*Fault{arn(r.LicenseArn), clientToken(r.ClientToken)} {
		if f != nil {
			return f
		}
	}
	return entitlements(r.Entitlements)
}

// Validate returns the first fault of the request; nil: it has none.
func (r *ExtendRequest) Validate() *Fault {
	return required("LicenseConsumptionToken", r.LicenseConsumptionToken)
}

// Validate returns the first fault of the request; nil: it has none.
func (r *CheckInRequest) Validate() *Fault {
	return required("LicenseConsumptionToken", r.LicenseConsumptionToken)
}

// Validate returns the first fault of the request; nil: it has none.
func (r *AccessTokenRequest) Validate() *Fault {
	switch {
	case r.Token == "" || len(r.Token) > 4096 || strings.ContainsAny(r.Token, " \t\r\n"):
		return invalid("Token must have 1 to 4096 characters and no white space.")
	case len(r.TokenProperties) > 3:
		return invalid("TokenProperties must have at most 3 members.")
	}
	return nil
}

// Validate returns the first fault of the request; nil: it has none.
func (r *LicenseRequest) Validate() *Fault { return arn(r.LicenseArn) }

// Validate returns the first fault of the request; nil: it has none.
func (r *ListRequest) Validate() *Fault {
	if r.MaxResults != nil && (*r.MaxResults < 1 || *r.MaxResults > 100) {
		return invalid("MaxResults must be from 1 to 100.")
	}
	for _, a := range r.LicenseArns {
		if f := arn(a); f != nil {
			return f
		}
	}
	known := []string{FilterSKU, FilterStatus, FilterFingerprint, FilterIssuer, FilterBeneficiary}
	for i, f := range r.Filters {
		if !slices.Contains(known, f.Name) || len(f.Values) == 0 {
			return &Fault{ErrInvalidParameter,
				fmt.Sprintf("Filters[%d] must have a name of %s, and values.", i, strings.Join(known, ", "))}
		}
	}
	return nil
}
