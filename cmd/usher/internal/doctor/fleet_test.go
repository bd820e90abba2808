package doctor

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// The mend of a drain names the host so that the command finds it: by its key where two hosts have one name, or it has
// none.
func TestDrainIsUndoneByName(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ name, other, want string }{
		{"h", "i", "--undo h`"}, {"h", "h", "--undo keyofthishos`"}, {"", "h", "--undo keyofthishos`"},
	} {
		const key = "keyofthishost"
		found := OfServer(&wire.Fleet{Agent: key, Name: x.name, State: "draining",
			Agents: []wire.FleetAgent{{Agent: key, Name: x.name}, {Agent: "another", Name: x.other}}})
		if len(found) != 1 || found[0].Code != "FLEET_DRAINED" || !strings.Contains(found[0].Hint, x.want) {
			t.Errorf("%+v: %+v", x, found)
		}
	}
}
