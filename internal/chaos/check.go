package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Bounds say what the documentation allows.
type Bounds struct {
	// Staleness is how long a node may work with what another has replaced: a secret
	// of an application.
	Staleness time.Duration
	// CodeLife is the age from which a code may be refused that was never used.
	CodeLife time.Duration
	// Tokens is how many a rate limit has for each key, Admitted how many it may give out at most
	// while nodes do not reach each other. Where both are the same, it may refuse
	// none before.
	Tokens, Admitted int
}

// decideFor bounds the search for an order of one key's operations.
const decideFor = 20 * time.Second

// Check looks for what must not be. The result is empty when all promises held.
func Check(ops []Op, b Bounds) []string {
	var faults []string
	faults = append(faults, ordered(ops, "refresh tokens", familyModel(), Granted, Refresh, Revoke, UserInfo)...)
	faults = append(faults, ordered(ops, "codes", codeModel(b.CodeLife), Session, Login, Redeem)...)
	faults = append(faults, ordered(ops, "documents", documentModel(), Write, Read)...)
	faults = append(faults, ordered(ops, "rate limits", limitModel(b.Tokens, b.Admitted), Take)...)
	faults = append(faults, sessions(ops)...)
	faults = append(faults, users(ops)...)
	return append(faults, secrets(ops, b.Staleness)...)
}

// ordered looks for an order of each key's operations that one server working on
// one after the other could have had, and that fits the times of calls and
// returns.
func ordered(ops []Op, what string, model porcupine.Model, kinds ...Kind) (faults []string) {
	byKey := map[string][]porcupine.Operation{}
	for _, op := range ops {
		if !slices.Contains(kinds, op.Kind) || op.Key == "" {
			continue
		}
		end := int64(op.Return)
		if op.Outcome == Unknown {
			if op.Kind == UserInfo || op.Kind == Read || op.Kind == Login || op.Kind == Session {
				continue // it changes nothing, and says nothing
			}
			end = math.MaxInt64 // it may still happen
		}
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{Input: op, Output: op.Outcome, Call: int64(op.Call), Return: end})
	}
	for key, history := range byKey {
		contest(history)
		switch porcupine.CheckOperationsTimeout(model, history, decideFor) {
		case porcupine.Illegal:
			faults = append(faults, fmt.Sprintf("%s: no order of the operations explains what was answered:%s", what, story(key, history)))
		case porcupine.Unknown:
			faults = append(faults, fmt.Sprintf("%s: undecided within %s:%s", what, decideFor, story(key, history)))
		}
	}
	slices.Sort(faults)
	return faults
}

// contested is the Value of a Redeem during which there was another of the same
// code.
const contested = 1

// contest marks such operations: a second use of a code ends what the first is
// about to give out, so that it may be that neither gets anything.
func contest(history []porcupine.Operation) {
	for i, a := range history {
		op := a.Input.(Op)
		if op.Kind != Redeem {
			continue
		}
		for j, b := range history {
			if i != j && b.Input.(Op).Kind == Redeem && a.Call <= b.Return && b.Call <= a.Return {
				op.Value = contested
			}
		}
		history[i].Input = op
	}
}

// story tells the operations of a key, for who has to find the cause.
func story(key string, history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	s := " " + short(key)
	for _, h := range history {
		op := h.Input.(Op)
		s += fmt.Sprintf("\n    %9.3fs-%9.3fs %-13s %-7s %d", op.Call.Seconds(), op.Return.Seconds(), op.Kind, op.Outcome, op.Status)
		if op.Token != "" {
			s += " token " + short(op.Token)
		}
		if op.Next != "" {
			s += " gave " + short(op.Next)
		}
		if op.Kind == Write || op.Kind == Read {
			s += fmt.Sprintf(" value %d", op.Value)
		}
		if op.Error != "" {
			s += " (" + op.Error + ")"
		}
	}
	return s
}

func short(s string) string {
	if len(s) > 14 {
		return s[:14] + "…"
	}
	return s
}

// family is what a server knows of the refresh tokens of one login.
type family struct {
	current string // the token that works; "?" when its client never got it
	revoked bool
}

// familyModel is rotation without leeway: each token works once, a second use of
// one ends them all, and so does a revocation.
func familyModel() porcupine.Model {
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{family{}} },
		Step: func(state, input, output any) []any {
			f, op := state.(family), input.(Op)
			ended := family{revoked: true}
			switch outcome := output.(Outcome); op.Kind {
			case Granted:
				return []any{family{current: op.Next}}
			case UserInfo:
				if f.current == "" && !f.revoked || f.revoked != (outcome == Refused) {
					return nil
				}
				return []any{f}
			case Revoke:
				switch outcome {
				case OK:
					return []any{ended}
				case Unknown:
					return []any{f, ended}
				}
				return nil
			case Refresh:
				works := !f.revoked && f.current == op.Token
				switch {
				case outcome == OK && works:
					return []any{family{current: op.Next}}
				case outcome == Refused && !works:
					return []any{ended}
				case outcome == Unknown && works:
					return []any{f, family{current: "?"}}
				case outcome == Unknown:
					return []any{f, ended}
				}
			}
			return nil
		},
		Equal: func(a, b any) bool { return a == b },
	}).ToModel()
}

// codeState is what a server knows of a code.
type codeState struct {
	made time.Duration
	used bool
	is   bool
}

// codeModel is a code that works once, and is refused only when it was used, is
// being used by somebody else too, or is older than life.
func codeModel(life time.Duration) porcupine.Model {
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{codeState{}} },
		Step: func(state, input, output any) []any {
			c, op := state.(codeState), input.(Op)
			if op.Kind != Redeem { // it gave the code out
				return []any{codeState{made: op.Call, is: true}}
			}
			if !c.is {
				return nil
			}
			used := c
			used.used = true
			switch outcome := output.(Outcome); {
			case outcome == OK && !c.used:
				return []any{used}
			case outcome == Refused && (c.used || op.Return-c.made > life):
				return []any{c}
			case outcome == Refused && op.Value == contested:
				return []any{used}
			case outcome == Unknown:
				return []any{c, used}
			}
			return nil
		},
		Equal: func(a, b any) bool { return a == b },
	}).ToModel()
}

// documentModel is one value: who reads gets what was written last.
func documentModel() porcupine.Model {
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{0} },
		Step: func(state, input, output any) []any {
			op := input.(Op)
			switch outcome := output.(Outcome); {
			case op.Kind == Write && outcome == OK:
				return []any{op.Value}
			case op.Kind == Write && outcome == Unknown:
				return []any{state, op.Value}
			case op.Kind == Read && outcome == OK && state == op.Value:
				return []any{state}
			}
			return nil
		},
		Equal: func(a, b any) bool { return a == b },
	}).ToModel()
}

// limitModel is a bucket of tokens that nobody refills.
func limitModel(tokens, admitted int) porcupine.Model {
	exact := tokens == admitted
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{0} },
		Step: func(state, _, output any) []any {
			taken := state.(int)
			switch outcome := output.(Outcome); {
			case outcome == OK && taken < admitted:
				return []any{taken + 1}
			case outcome == Refused && (!exact || taken >= tokens):
				return []any{taken}
			case outcome == Unknown && exact && taken < admitted:
				return []any{taken, taken + 1}
			case outcome == Unknown: // in parts that do not see each other, it counts for one of them
				return []any{taken}
			}
			return nil
		},
		Equal: func(a, b any) bool { return a == b },
	}).ToModel()
}

// sessions finds browsers that were logged in and were asked for a password.
func sessions(ops []Op) (faults []string) {
	for _, op := range ops {
		if op.Kind == Session && op.Outcome == Refused {
			faults = append(faults, fmt.Sprintf("sessions: at %.3fs a browser with a session was asked to log in: %s", op.Call.Seconds(), op.Error))
		}
	}
	return faults
}

// users finds acknowledged users that are gone, and users that are there twice.
func users(ops []Op) (faults []string) {
	acknowledged := map[string]bool{}
	for _, op := range ops {
		if op.Kind == Create && op.Outcome == OK {
			acknowledged[op.Key] = true
		}
	}
	found := map[string]bool{}
	for _, op := range ops {
		if op.Kind != Find || op.Outcome != OK {
			continue
		}
		found[op.Key] = true
		if op.Value > 1 || op.Value < 1 && acknowledged[op.Key] {
			faults = append(faults, fmt.Sprintf("users: %s is there %d times; its making was acknowledged: %t", op.Key, op.Value, acknowledged[op.Key]))
		}
	}
	for key := range acknowledged {
		if !found[key] {
			faults = append(faults, fmt.Sprintf("users: %s was acknowledged, and could not be looked for at the end", key))
		}
	}
	slices.Sort(faults)
	return faults
}

// secrets finds applications' secrets that were accepted after another had taken
// their place, and new ones that were refused, for longer than the bound.
func secrets(ops []Op, bound time.Duration) (faults []string) {
	for _, s := range staleness(ops) {
		if s.late > bound {
			faults = append(faults, fmt.Sprintf("secrets: at %.3fs %s, %.3fs after the change was acknowledged; the bound is %s", s.op.Call.Seconds(), s.what, s.late.Seconds(), bound))
		}
	}
	return faults
}

type stale struct {
	op   Op
	what string
	late time.Duration
}

// staleness lists the answers that were given from an old state, with how old it
// was. A rotation without an answer counts as a change from its call on, at a time
// that nobody knows: it excuses what comes after it.
func staleness(ops []Op) (all []stale) {
	rotations := map[string][]Op{}
	for _, op := range ops {
		if op.Kind == Rotate || op.Kind == Granted { // Granted: the first secret
			rotations[op.Key] = append(rotations[op.Key], op)
		}
	}
	for _, r := range rotations {
		slices.SortFunc(r, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	}
	for _, op := range ops {
		if op.Kind != Machine || op.Outcome == Unknown {
			continue
		}
		r := rotations[op.Key]
		made := slices.IndexFunc(r, func(r Op) bool { return r.Outcome == OK && r.Next == op.Token })
		switch op.Outcome {
		case OK: // what came after this secret?
			for _, next := range r[made+1:] {
				if next.Outcome == OK && op.Call > next.Return {
					all = append(all, stale{op, "an old secret was accepted", op.Call - next.Return})
					break
				}
			}
		case Refused: // was this the secret, at the call and until the return?
			if made < 0 || op.Call < r[made].Return {
				continue
			}
			if next := made + 1; next < len(r) && r[next].Call < op.Return {
				continue
			}
			all = append(all, stale{op, "the secret that holds was refused", op.Call - r[made].Return})
		}
	}
	return all
}

// Window is a time in which operations failed.
type Window struct{ From, To time.Duration }

// Availability is how the operations of one kind fared.
type Availability struct {
	Kind    Kind
	Count   int
	Failed  int
	Windows []Window // in order, apart by more than a second of successes
	Longest time.Duration
	Errors  map[string]int
}

// Availabilities counts by kind what got no proper answer, and when. The last is
// over all kinds.
func Availabilities(ops []Op) []Availability {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	const apart = time.Second
	byKind := map[Kind]*Availability{}
	total := &Availability{Kind: "all"}
	order := []*Availability{}
	for _, op := range ops {
		if op.Kind == Granted {
			continue
		}
		a := byKind[op.Kind]
		if a == nil {
			a = &Availability{Kind: op.Kind}
			byKind[op.Kind] = a
			order = append(order, a)
		}
		for _, a := range []*Availability{a, total} {
			a.Count++
			if op.Outcome != Unknown {
				continue
			}
			a.Failed++
			if a.Errors == nil {
				a.Errors = map[string]int{}
			}
			a.Errors[fmt.Sprintf("%d %s", op.Status, op.Error)]++
			if n := len(a.Windows); n > 0 && op.Call <= a.Windows[n-1].To+apart {
				a.Windows[n-1].To = max(a.Windows[n-1].To, op.Return)
			} else {
				a.Windows = append(a.Windows, Window{op.Call, op.Return})
			}
		}
	}
	slices.SortFunc(order, func(a, b *Availability) int { return cmp.Compare(a.Kind, b.Kind) })
	var out []Availability
	for _, a := range append(order, total) {
		for _, w := range a.Windows {
			a.Longest = max(a.Longest, w.To-w.From)
		}
		out = append(out, *a)
	}
	return out
}
