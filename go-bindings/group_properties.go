package ottla

import (
	"encoding/json"
	"strings"
)

// groupProperty is the option of a setting of a member that a property has said; nil for another setting.
func groupProperty(name string, raw json.RawMessage) (ConsumerOption, error) {
	switch name {
	case "assignors":
		return option(raw, as[string], func(list string) ConsumerOption {
			var assignors []Assignor
			for _, word := range strings.Split(list, ",") {
				assignors = append(assignors, Assignor(word))
			}
			return Assignors(assignors...)
		})
	case "commit":
		return option(raw, as[string], func(word string) ConsumerOption {
			byHand := map[string]committing{"manual": commitManual, "manual_acked": commitManualAcked}
			if how, is := byHand[word]; is {
				// Programs without a group say so, too, since other clients would commit.
				return consumerOption(func(s *consumerSettings) error {
					s.committing = how
					return nil
				})
			}
			return map[string]committing{"marks": commitMarks, "acked": commitAcked}[word].option()
		})
	case "commit_interval":
		return option(raw, span, CommitInterval)
	case "group_protocol":
		return option(raw, as[string], func(word string) ConsumerOption {
			return Protocol(GroupProtocol(word))
		})
	case "remote_assignor":
		return option(raw, as[string], RemoteAssignor)
	case "group":
		return option(raw, as[string], Group)
	case "instance_id":
		return option(raw, as[string], InstanceID)
	case "max_poll_interval":
		return option(raw, span, MaxPollInterval)
	case "session_timeout":
		return option(raw, span, SessionTimeout)
	}
	return nil, nil
}
