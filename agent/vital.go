package agent

import (
	"cmp"
	"errors"
	"io/fs"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/agent/vitals"
	"github.com/usher-agent/usher/client/wire"
)

// folders are the agent's own two, with what must lie in them.
type folders struct {
	state, runtime *files.Held
	keyFile        identity.File
}

// locked says why one of the folders is not the agent's own now; nil: it is.
func (f folders) locked(state bool) error {
	if state {
		return f.state.Look()
	}
	return f.runtime.Look()
}

// openVitals has what is vital watched, and mended where that can be done.
func (o *opening) openVitals(socket *api.Socket) {
	f := o.folders
	o.vitals = vitals.New(vitals.Config{Now: o.options.Now, Beat: o.beat, Log: o.log,
		Movers: map[string]vitals.Mover{"desk": o.desk, "verdict": o.court},
		Parts: []vitals.Part{
			{Name: "runtime", Look: f.runtime.Look, Mend: func() error {
				made, err := f.runtime.Restore()
				o.restored(made)
				return err
			}},
			{Name: "state", Look: func() error { return cmp.Or(f.state.Look(), f.keyFile.Gone()) }, Mend: func() error {
				made, err := f.state.Restore()
				if err == nil {
					err = errors.Join(f.keyFile.Restore(o.key), o.signer.Attestations.Restore())
				}
				o.restored(made) // behind the key: a start with a journal and no key would not know whose it is
				return err
			}},
			{Name: "seal", Look: o.lookAtSeals, Mend: o.mendSeals},
			{Name: "journal", Look: o.desk.Unwell},
			{Name: "socket", Look: socket.Look, Mend: socket.Mend},
			{Name: "dialect", Look: o.dialects.Look, Mend: func() error { return o.dialects.Mend(f.state.Look()) }},
		}})
	o.running.task("vitals", o.vitals.Run)
}

// restored has the journals of a folder that was made again begun anew at once: what must last is denied until then.
func (o *opening) restored(made bool) {
	if made {
		o.desk.LookAtJournals()
	}
}

// lookAtSeals says which sealed files are gone.
func (a *Agent) lookAtSeals() error {
	return cmp.Or(a.seals.State.Missing(), a.seals.Runtime.Missing())
}

// mendSeals writes them again, in folders that are the agent's own.
func (a *Agent) mendSeals() error {
	if err := cmp.Or(a.folders.state.Look(), a.folders.runtime.Look()); err != nil {
		return err
	}
	return errors.Join(a.seals.State.Mend(), a.seals.Runtime.Mend())
}

// keepSocket has the service manager keep the socket over a restart.
func (o *opening) keepSocket(socket *api.Socket, is fs.FileInfo) {
	if socket.IsActivated() { // it has that one already
		return
	}
	if name := systemd.SocketName(is); name != "" &&
		o.handover.Keep(name, systemd.Kept{Lend: socket.Lend, Close: func() {}}) {
		socket.Stay()
	}
}

// socketMoved has the service manager keep a socket that was bound again instead of the one of before.
func (o *opening) socketMoved(socket *api.Socket, was, is fs.FileInfo) {
	if name := systemd.SocketName(was); name != "" {
		o.handover.Drop(name)
	}
	o.keepSocket(socket, is)
}

// unready says what keeps the agent from being ready.
func (a *Agent) unready() (out []wire.Unready) {
	for _, f := range a.vitals.Faults() {
		out = append(out, wire.Unready{Part: f.Part, Reason: f.Reason, Since: f.Since})
	}
	return out
}
