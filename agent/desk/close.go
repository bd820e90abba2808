package desk

import "github.com/usher-agent/usher/enforcer"

// Close writes the mark of the clock, seals the journals, and closes them.
func (d *Desk) Close() error {
	if d.store == nil {
		return nil
	}
	d.mu.Lock()
	d.advance(true)
	d.mu.Unlock()
	d.store.look(d) // a journal that was deleted a moment ago is begun anew yet, or the next start would miss it
	d.store.sealAll(d)
	d.memory.Set(0)
	return d.store.Close()
}

// Withheld says which slots and draws are not given because the state was found changed.
func (d *Desk) Withheld() enforcer.Withheld {
	if d.store == nil {
		return enforcer.Withheld{}
	}
	return d.store.withheld
}
