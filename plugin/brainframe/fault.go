package brainframe

import (
	"net/http"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Fault is an error of the API. Clients tell errors apart by the title alone.
type Fault struct {
	Title       string `json:"title"`
	Description string `json:"description"`
}

// The titles of errors.
const (
	LicenseInvalid      = "LicenseInvalidError"
	LicenseExpired      = "LicenseExpiredError"
	LicenseRequired     = "LicenseRequiredError"
	AnalysisLimit       = "AnalysisLimitExceededError"
	RemoteConnection    = "RemoteConnectionError"
	Unauthorized        = "UnauthorizedError"
	InvalidSession      = "InvalidSessionError"
	InsufficientRole    = "InsufficientRoleError"
	InvalidFormat       = "InvalidFormatError"
	NotImplemented      = "NotImplementedError"
	CloudUserNotFound   = "CloudUserNotFoundError"
	UnknownError        = "UnknownError"
	installerConfigured = "name the user under the listener's installers, or ask on a Unix socket as an admin"
)

// answer is an answer of the API. Its body is JSON.
type answer struct {
	status int
	body   []byte
	fault  *Fault // instead of body
}

// failed is the answer to a request that is refused. No status is 502, which clients take for a server that is away.
func failed(status int, title, description string) *answer {
	return &answer{status: status, fault: &Fault{title, description}}
}

// Refuse answers what the agent refuses before the API is asked; see [plugin.Refuser].
func (Dialect) Refuse(w http.ResponseWriter, r *http.Request, status int, d *enforcer.Denial) {
	a := denied(d)
	switch {
	case status == http.StatusUnauthorized:
		a = failed(status, Unauthorized, d.Detail)
	case d.Code == enforcer.TooLarge && r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/license"):
		a = failed(status, LicenseInvalid, d.Detail)
	}
	a.write(w)
}

// denied puts a refusal of the desk into BrainFrame's words.
func denied(d *enforcer.Denial) *answer {
	text := d.Detail
	if d.Hint != "" {
		text += "; " + d.Hint
	}
	switch d.Code {
	case enforcer.NoSlots, enforcer.NotShared, enforcer.MeterEmpty, enforcer.PoolUnknown, enforcer.DeniedByPolicy,
		enforcer.HeldOff:
		return failed(http.StatusConflict, AnalysisLimit, text)
	case enforcer.LicenseMissing, enforcer.LicenseInvalid, enforcer.LicenseExpired:
		return failed(http.StatusForbidden, LicenseRequired, text)
	case enforcer.DocumentRefused:
		return failed(http.StatusBadRequest, LicenseInvalid, text)
	case enforcer.Forbidden, enforcer.NotHolder:
		return failed(http.StatusForbidden, InsufficientRole, text)
	case enforcer.BadRequest, enforcer.TooLarge:
		return failed(http.StatusBadRequest, InvalidFormat, text)
	case enforcer.Storage:
		return failed(http.StatusInsufficientStorage, UnknownError, text)
	case enforcer.RateLimited:
		return failed(http.StatusTooManyRequests, UnknownError, text)
	case enforcer.Draining:
		return failed(http.StatusServiceUnavailable, UnknownError, text)
	}
	return failed(http.StatusInternalServerError, UnknownError, text)
}

// unconfirmed puts what a licence's upstream said of it into BrainFrame's words.
func unconfirmed(e *plugin.Error) *answer {
	switch {
	case e.Class == plugin.Refused && e.Code == enforcer.Expired:
		return failed(http.StatusForbidden, LicenseExpired, e.Reason)
	case e.Class == plugin.Refused:
		return failed(http.StatusBadRequest, LicenseInvalid, e.Reason)
	}
	text := e.Reason
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return failed(http.StatusServiceUnavailable, RemoteConnection, text)
}
