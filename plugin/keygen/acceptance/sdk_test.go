package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/keygen-sh/keygen-go/v3"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// The SDK's whole life: over TCP and a Unix socket, with a licence of either system, with the dialect's key pinned and
// with none.
func TestLife(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(*testing.T) *place
		unix   bool
		pinned bool
	}{
		{"native-tcp-pinned", func(t *testing.T) *place { return native(t, 1, 1, 5) }, false, true},
		{"native-tcp-no-key", func(t *testing.T) *place { return native(t, 1, 1, 5) }, false, false},
		{"native-socket-pinned", func(t *testing.T) *place { return native(t, 1, 1, 5) }, true, true},
		{"keygen-tcp-pinned", nodeLocked, false, true},
		{"keygen-socket-no-key", nodeLocked, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.make(t)
			pin := ""
			if c.pinned {
				pin = p.key
			}
			use(t, p, c.unix, pin)
			live(t, p)
		})
	}
}

const fingerprint = "3d3a5a4e9d5d5f2e1c7f44c0fbb4c3a4f4b3d1c9a6a0b7e6d5c4b3a291807f6e"

func live(t *testing.T, p *place) {
	ctx := within(t)
	must := func(err error) { t.Helper(); must(t, err) }
	// Validate: not activated yet.
	license, err := sdk.Validate(ctx, fingerprint)
	if !errors.Is(err, sdk.ErrLicenseNotActivated) {
		t.Fatalf("validated before activation: %v", err)
	}
	if license.Key != sdk.LicenseKey || license.Name != "Acme" {
		t.Errorf("the licence is %+v", license)
	}
	// Activate, with components.
	machine, err := license.Activate(ctx, fingerprint, sdk.Component{Name: "board", Fingerprint: "b1"},
		sdk.Component{Name: "disk", Fingerprint: "d1"})
	must(err)
	if machine.Fingerprint != fingerprint || machine.HeartbeatDuration <= 30 || machine.Cores < 1 {
		t.Errorf("the machine is %+v", machine)
	}
	license, err = sdk.Validate(ctx, fingerprint, "b1", "d1")
	must(err)
	if _, err := sdk.Validate(ctx, fingerprint, "b2"); !errors.Is(err, sdk.ErrComponentNotActivated) {
		t.Errorf("another component: %v", err)
	}
	if _, err := sdk.Validate(ctx, "another"); !errors.Is(err, sdk.ErrLicenseNotActivated) {
		t.Errorf("another machine: %v", err)
	}
	if _, err := license.Activate(ctx, fingerprint); !errors.Is(err, sdk.ErrMachineAlreadyActivated) {
		t.Errorf("activated twice: %v", err)
	}
	if _, err := license.Activate(ctx, "another"); !errors.Is(err, sdk.ErrMachineLimitExceeded) {
		t.Errorf("one machine too many: %v", err)
	}
	// Monitor: the first ping is done when it returns.
	must(machine.Monitor(ctx))
	if machine.HeartbeatStatus != sdk.HeartbeatStatusCodeAlive {
		t.Errorf("the heartbeat is %s", machine.HeartbeatStatus)
	}
	process := spawn(t, machine)
	listed(t, p, license, machine)
	// Check out, and verify offline.
	file, err := license.Checkout(ctx, sdk.CheckoutTTL(24*time.Hour))
	must(err)
	machineFile, err := machine.Checkout(ctx, sdk.CheckoutInclude("license", "license.entitlements", "components"))
	must(err)
	offline(t, p, file, machineFile)
	// Kill and deactivate.
	must(process.Kill(ctx))
	must(license.Deactivate(ctx, fingerprint))
	var gone *sdk.NotFoundError
	if _, err := license.Machine(ctx, machine.ID); !errors.As(err, &gone) {
		t.Errorf("a machine that is gone: %v", err)
	}
	if _, err := sdk.Validate(ctx, fingerprint); !errors.Is(err, sdk.ErrLicenseNotActivated) {
		t.Errorf("validated after deactivation: %v", err)
	}
	again, err := license.Activate(ctx, "another")
	must(err)
	must(again.Deactivate(ctx))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spawn makes processes up to the limit, and returns the first. The SDK pings it, too.
func spawn(t *testing.T, machine *sdk.Machine) *sdk.Process {
	t.Helper()
	process, err := machine.Spawn(within(t), "1234")
	must(t, err)
	if process.Status != sdk.ProcessStatusCodeAlive || process.Interval <= 30 {
		t.Errorf("the process is %+v", process)
	}
	var typed error
	for i := range 3 {
		if _, typed = machine.Spawn(within(t), fmt.Sprint("more", i)); typed != nil {
			break
		}
	}
	if !errors.Is(typed, sdk.ErrProcessLimitExceeded) {
		t.Errorf("processes beyond the limit: %v", typed)
	}
	return process
}

// listed checks the lists of a licence and its machine.
func listed(t *testing.T, p *place, license *sdk.License, machine *sdk.Machine) {
	t.Helper()
	machines, err := license.Machines(within(t))
	must(t, err)
	components, err := machine.Components(within(t))
	must(t, err)
	processes, err := machine.Processes(within(t))
	must(t, err)
	entitlements, err := license.Entitlements(within(t))
	must(t, err)
	if len(machines) != 1 || len(components) != 2 || len(processes) < 1 || len(entitlements) != p.entitled {
		t.Errorf("machines %v, components %v, processes %v, entitlements %v", machines, components, processes,
			entitlements)
	}
	if m, err := license.Machine(within(t), fingerprint); err != nil || m.ID != machine.ID {
		t.Errorf("by fingerprint: %+v, %v", m, err)
	}
}

// Several machines at once, up to the limit. One too many is the SDK's own error, and a place given back is free for
// another. After a kill the agent still has them all, and the SDK goes on.
func TestSeveralMachines(t *testing.T) {
	const limit = 5
	p := native(t, limit, 2*limit, 100)
	use(t, p, true, p.key)
	ctx := within(t)
	license, err := sdk.Validate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		machine *sdk.Machine
		err     error
	}
	results := make(chan result)
	for i := range 2 * limit {
		go func() {
			m, err := license.Activate(ctx, fmt.Sprint("machine-", i))
			results <- result{m, err}
		}()
	}
	var machines []*sdk.Machine
	for range 2 * limit {
		switch r := <-results; {
		case r.err == nil:
			machines = append(machines, r.machine)
		case !errors.Is(r.err, sdk.ErrMachineLimitExceeded):
			t.Errorf("refused with %v", r.err)
		}
	}
	if len(machines) != limit {
		t.Fatalf("%d machines of %d", len(machines), limit)
	}
	process, err := machines[0].Spawn(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	p.start()
	for _, m := range machines {
		if _, err := sdk.Validate(ctx, m.Fingerprint); err != nil {
			t.Errorf("%s after the kill: %v", m.Fingerprint, err)
		}
	}
	if list, err := machines[0].Processes(ctx); err != nil || len(list) != 1 || list[0].ID != process.ID {
		t.Errorf("processes after the kill: %v, %v", list, err)
	}
	if _, err := license.Activate(ctx, "more"); !errors.Is(err, sdk.ErrMachineLimitExceeded) {
		t.Errorf("one too many after the kill: %v", err)
	}
	if err := machines[0].Deactivate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := license.Activate(ctx, "more"); err != nil {
		t.Errorf("in the place of one that has gone: %v", err)
	}
	var gone *sdk.NotFoundError
	if err := process.Kill(ctx); !errors.As(err, &gone) {
		t.Errorf("a process of a machine that has gone: %v", err)
	}
}

// The SDK rejects an answer by another key, and gets no slot with another licence key.
func TestNotBelieved(t *testing.T) {
	p := native(t, 1, 1, 1)
	use(t, p, false, strings.Repeat("1", 64))
	ctx := within(t)
	if _, err := sdk.Validate(ctx); !errors.Is(err, sdk.ErrResponseSignatureInvalid) {
		t.Errorf("another key pinned: %v", err)
	}
	use(t, p, false, p.key)
	sdk.LicenseKey = "another"
	var wrong *sdk.LicenseKeyError
	if _, err := sdk.Validate(ctx); !errors.As(err, &wrong) {
		t.Errorf("another licence key: %v", err)
	}
}

// offline verifies and opens both files without the agent.
func offline(t *testing.T, p *place, file *sdk.LicenseFile, machineFile *sdk.MachineFile) {
	t.Helper()
	pinned := sdk.PublicKey
	defer func() { sdk.PublicKey = pinned }()
	sdk.PublicKey = p.key
	if err := file.Verify(); err != nil {
		t.Error(err)
	}
	if err := machineFile.Verify(); err != nil {
		t.Error(err)
	}
	d, err := file.Decrypt(sdk.LicenseKey)
	if err != nil {
		t.Fatal(err)
	}
	if d.License.Key != sdk.LicenseKey || len(d.Entitlements) != p.entitled || d.TTL < 23*3600 || d.TTL > 24*3600 {
		t.Errorf("the licence file says %+v", d)
	}
	m, err := machineFile.Decrypt(sdk.LicenseKey + fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	if m.Machine.Fingerprint != fingerprint || m.License.Key != sdk.LicenseKey || len(m.Components) != 2 ||
		len(m.Entitlements) != p.entitled {
		t.Errorf("the machine file says %+v", m)
	}
	if _, err := file.Decrypt("another key"); err == nil {
		t.Error("another key opens the licence file")
	}
	sdk.PublicKey = strings.Repeat("0", 64)
	if err := file.Verify(); err == nil {
		t.Error("another key's file is good")
	}
}
