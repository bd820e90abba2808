package wire

import "time"

// Reloaded is the answer to POST /v1/reload.
type Reloaded struct {
	Changed []string `json:"changed"` // keys that are in force with their new values
	Restart []string `json:"restart"` // changed keys that need a restart
	// Files are the files that those of the keys name whose content has changed, and not the name.
	Files []RenewedFile `json:"files,omitempty"`
	// Verdict is what the verdict has turned from and to; nil: it has not.
	Verdict *TurnedVerdict `json:"verdict,omitempty"`
	// Last is the latest reload since the start that put keys in force; only where this one put none. The agent reloads
	// by itself when its configuration file changes, so that the change may be in force before the call.
	Last *LastReload `json:"last,omitempty"`
}

// LastReload is a former reload.
type LastReload struct {
	At      time.Time `json:"at"`
	Changed []string  `json:"changed"` // as in Reloaded
}

// RenewedFile is a file with new content.
type RenewedFile struct {
	Key  string `json:"key"` // that names it
	File string `json:"file"`
}

// TurnedVerdict is a change of the verdict.
type TurnedVerdict struct {
	From   string `json:"from"` // codes of verdicts
	To     string `json:"to"`
	Reason string `json:"reason"` // of the present one
}
