package wire

import "time"

// HoldOff says that an admin has released a lease by force, and that its holder gets no slots of the pool for a while.
type HoldOff struct {
	Lease      string `json:"lease"` // that was released; by its id the hold-off is changed, or lifted
	UID        uint32 `json:"uid"`
	Credential string `json:"credential,omitempty"` // see Holder
	// only these processes, where the uid stands for several users
	PIDs  []int32   `json:"pids,omitempty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}
