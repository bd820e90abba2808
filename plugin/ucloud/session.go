package ucloud

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// session makes calls to a UCloud with one token.
type session struct {
	base     *url.URL
	http     *http.Client
	now      func() time.Time
	token    func() (string, error) // the API token or refresh token, for the next call
	provider bool                   // it is a provider's
	project  string                 // the workspace; empty: none is named

	mu     sync.Mutex // guards access; never held over a call
	access string     // the access token of a refresh token; empty: none yet
	from   string     // the refresh token that access is from
}

func newSession(base *url.URL, c *Config, token func() (string, error), provider bool) *session {
	s := &session{base: base, now: c.Now, token: token, provider: provider, http: &http.Client{Transport: c.HTTP,
		// A redirect could come from somebody other than the server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if !provider {
		s.project = c.Project
	}
	return s
}

// get reads something: see ask.
func (s *session) get(ctx context.Context, path string, q url.Values, out any) (int, *plugin.Error) {
	return s.ask(ctx, http.MethodGet, path, q, nil, out)
}

// ask makes a call. The status is 200, 401, 403 or 404, the middle two after a new access token; out is filled for 200.
// Anything else is an error.
func (s *session) ask(ctx context.Context, method, path string, q url.Values, body []byte,
	out any) (int, *plugin.Error) {
	token, err := s.token()
	if err != nil {
		return 0, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error(),
			Hint: "mend the file of upstream.ucloud." + s.key()}
	}
	for try := 0; ; try++ {
		bearer, e := s.bearer(ctx, token, try > 0)
		if e != nil {
			return 0, e
		}
		status, b, e := s.call(ctx, method, path, q, body, bearer)
		switch {
		case e != nil:
			return 0, e
		case status == http.StatusOK:
			if err := json.Unmarshal(b, out); err != nil {
				return 0, plugin.Transiently("%s: its answer cannot be read: %v", s.base.Host,
					plugin.JSONFault(err, "member"))
			}
			return status, nil
		case (status == http.StatusUnauthorized || status == http.StatusForbidden) && try == 0 && !isAPIToken(token):
			continue
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
			return status, nil
		}
		var f struct {
			Why *string `json:"why"`
		}
		why := cmp.Or(http.StatusText(status), "it gave no reason")
		if json.Unmarshal(b, &f) == nil && f.Why != nil {
			why = *f.Why
		}
		switch {
		case status == http.StatusPaymentRequired:
			return 0, &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, SystemCode: ErrorNoCredits,
				Reason: "UCloud answered 402: " + why, Hint: "apply for more credit at UCloud"}
		case status == http.StatusNotFound && !strings.Contains(strings.ToLower(why), "maintenance"):
			return status, nil
		default:
			return 0, plugin.Transiently("%s answered %d: %s", s.base.Host, status, why)
		}
	}
}

// call makes one request, and returns the answer's body. An empty bearer is not sent.
func (s *session) call(ctx context.Context, method, path string, q url.Values, body []byte,
	bearer string) (int, []byte, *plugin.Error) {
	target := s.base.JoinPath(path)
	target.RawQuery = q.Encode()
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return 0, nil, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error()}
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	req.Header.Set("Accept", "application/json")
	if s.project != "" {
		req.Header.Set("Project", s.project)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return 0, nil, plugin.Unreached(ctx, s.base.Host, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, plugin.Transiently("%s: its answer broke off", s.base.Host)
	case len(b) > maxAnswer:
		return 0, nil, plugin.Transiently("%s: its answer is larger than %d bytes", s.base.Host, maxAnswer)
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		e := plugin.Transiently("%s answered %s", s.base.Host, res.Status)
		e.RetryAfter = plugin.RetryAfter(res.Header, s.now())
		return 0, nil, e
	}
	return res.StatusCode, b, nil
}

// isAPIToken reports whether a token is used as it is. UCloud tells the kinds by the same two letters.
func isAPIToken(token string) bool { return strings.HasPrefix(token, "uc") }

// key is the key of the configuration that names the token's file.
func (s *session) key() string {
	if s.provider {
		return "provider_token_file"
	}
	return "token_file"
}

// bearer returns the token for a call: the API token, or an access token that is good for a while.
func (s *session) bearer(ctx context.Context, token string, renew bool) (string, *plugin.Error) {
	if isAPIToken(token) {
		return token, nil
	}
	s.mu.Lock()
	access := s.access
	if s.from != token {
		access = ""
	}
	s.mu.Unlock()
	if !renew && access != "" && expires(access).Sub(s.now()) > renewBefore {
		return access, nil
	}
	status, access, e := s.refresh(ctx, token)
	if e != nil {
		return "", e
	}
	if access == "" {
		return "", &plugin.Error{Class: plugin.Misconfigured,
			Reason: fmt.Sprintf("%s answered %d, and gave no access token for the refresh token", s.base.Host, status),
			Hint:   "put a new refresh token, or an API token, into upstream.ucloud." + s.key()}
	}
	s.mu.Lock()
	s.access, s.from = access, token
	s.mu.Unlock()
	return access, nil
}

// refresh asks for an access token, by a user's call or a provider's; empty: none was given.
func (s *session) refresh(ctx context.Context, refresh string) (status int, access string, e *plugin.Error) {
	type tokens struct {
		Refresh string `json:"refreshToken,omitzero"`
		Access  string `json:"accessToken,omitzero"`
	}
	var b []byte
	if !s.provider {
		var out tokens
		if status, b, e = s.call(ctx, http.MethodPost, "/auth/refresh", nil, nil, refresh); e == nil &&
			status == http.StatusOK && json.Unmarshal(b, &out) == nil {
			access = out.Access
		}
		return status, access, e
	}
	body, err := json.Marshal(Bulk[tokens]{[]tokens{{Refresh: refresh}}})
	if err != nil {
		return 0, "", plugin.Transiently("%v", err)
	}
	var out Responses[tokens]
	if status, b, e = s.call(ctx, http.MethodPost, "/auth/providers/refresh", nil, body, ""); e == nil &&
		status == http.StatusOK && json.Unmarshal(b, &out) == nil && len(out.Responses) == 1 {
		access = out.Responses[0].Access
	}
	return status, access, e
}

// expires reads the end of an access token, without verifying it: only the server needs to.
func expires(token string) time.Time {
	parts := strings.Split(token, ".")
	var body struct {
		Expires int64 `json:"exp"`
	}
	if len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(b, &body) == nil {
			return time.Unix(body.Expires, 0)
		}
	}
	return time.Time{}
}
