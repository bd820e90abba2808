package fleet

// NewSim returns a simulated store.
func NewSim() Store { return &way{sim: newSim()} }
