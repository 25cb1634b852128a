package netcontract

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Profile names a set of peers for the same rows.
type Profile string

// The profiles.
const (
	// ProfilePSaaS carries the published hosts and addresses. It is there to be laid beside
	// the published list; no node runs on it.
	ProfilePSaaS Profile = "psaas"
	// ProfilePortcullis is the default: updates, assets, examples and telemetry come from
	// and go to a depot that the operator names.
	ProfilePortcullis Profile = "portcullis"
)

// Profiles lists the profiles, the default first.
func Profiles() []Profile { return []Profile{ProfilePortcullis, ProfilePSaaS} }

// ParseProfile reads a profile's name. The empty string is the default. The
// error names what is allowed.
func ParseProfile(s string) (Profile, error) {
	if s == "" {
		return ProfilePortcullis, nil
	}
	if slices.Contains(Profiles(), Profile(s)) {
		return Profile(s), nil
	}
	return "", fmt.Errorf("profile %q is not known: allowed are %s", s, join(Profiles()))
}

func join[T ~string](values []T) string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

// Contract is the contract in the named profile; the empty name is the default.
func Contract(p Profile) (Table, error) {
	p, err := ParseProfile(string(p))
	if err != nil {
		return Table{}, err
	}
	if p == ProfilePSaaS {
		return psaas(), nil
	}
	return portcullis(), nil
}

func port(n uint16) PortRange { return PortRange{From: n, To: n} }

func ports(n ...uint16) []PortRange {
	r := make([]PortRange, len(n))
	for i, p := range n {
		r[i] = port(p)
	}
	return r
}

// baseRows is what both profiles share: ids, ports, directions, flags, owners,
// in the order of the published list.
func baseRows() []Row {
	tcp := []Protocol{TCP}
	node := func(line int, id RowID, owner string, listed bool, p ...PortRange) Row {
		return Row{
			ID: id, Section: BetweenNodes, Line: line, Ports: p, Protocols: tcp,
			Direction: Mutual, Peer: "every other node of the cluster", Listed: listed, Owner: owner,
		}
	}
	ext := func(line int, id RowID, d Direction, owner string, listed bool, p ...PortRange) Row {
		return Row{ID: id, Section: External, Line: line, Ports: p, Protocols: tcp, Direction: d, Listed: listed, Owner: owner}
	}
	rows := []Row{
		node(1, Database, "store/postgres", true, port(27017)),
		node(2, Control, "control", true, port(7777)),
		node(3, RateLimit, "ratelimit", true, port(9001)),
		node(4, WebtaskLogs, "webtask", true, port(8721)),
		node(5, WebtaskControl, "webtask", true, port(8701)),
		node(6, SearchHTTP, "search", true, port(9200)),
		node(6, SearchTransport, "search", true, PortRange{From: 9300, To: 9400}),
		node(7, Grafana, "telemetry", false, port(3000)),
		node(8, Maintenance, "maintenance", false, port(22)),
		node(9, ICMPEcho, "health", false),

		ext(1, LB, Inbound, "appliance", true, port(80), port(443), PortRange{From: 4443, To: 4443, Alternative: true}),
		ext(2, WebtaskCallback, Outbound, "webtask", true, port(443)),
		ext(3, CLI, Both, "cli", false, port(10121)),
		ext(4, UpdatePackages, Outbound, "update", true, ports(80, 443)...),
		ext(5, UpdateImages, Outbound, "update", true, port(443)),
		ext(6, CDN, Outbound, "dashboard", true, port(443)),
		ext(7, Examples, Outbound, "examples", false, port(443)),
		ext(8, Telemetry, Outbound, "telemetry", true, port(443)),
		ext(9, JumpHost, Inbound, "maintenance", false, port(22)),
		ext(10, Health, Inbound, "health", false, port(9110)),
		ext(11, DNS, Both, "egress", true, port(53)),
		ext(0, Social, Outbound, "upstream", true, port(443)),
	}
	for i := range rows {
		switch rows[i].ID {
		case ICMPEcho:
			rows[i].Protocols = []Protocol{ICMP}
		case DNS:
			rows[i].Protocols = []Protocol{TCP, UDP}
		case RateLimit:
			rows[i].Condition = "rate limiting is used"
		case Grafana:
			rows[i].Condition = "instrumentation is used"
		case Social:
			rows[i].Condition = "users log in through such a provider"
		}
	}
	return rows
}

// words is what a profile says of a row.
type words struct {
	use, peer, note string
	host            string
	addresses       []string
}

func say(rows []Row, w map[RowID]words) []Row {
	for i := range rows {
		r, s := &rows[i], w[rows[i].ID]
		r.Use, r.Note = s.use, s.note
		if s.peer != "" {
			r.Peer = s.peer
		}
		if s.host != "" {
			h := Host{Name: s.host}
			for _, a := range s.addresses {
				h.Addresses = append(h.Addresses, netip.MustParseAddr(a))
			}
			r.Hosts = []Host{h}
		}
	}
	return rows
}

func psaas() Table {
	const balancer = "Your load balancer's IP address (often on the internal network)"
	rows := say(baseRows(), map[RowID]words{
		Database:        {use: "Database"},
		Control:         {use: "Control"},
		RateLimit:       {use: "Rate Limiting"},
		WebtaskLogs:     {use: "Webtask Logging/Control", note: "Needed for logging and debugging"},
		WebtaskControl:  {use: "Webtask Logging/Control", note: "Needed for logging and debugging"},
		SearchHTTP:      {use: "Elastic Search", note: "Needed by the search engine"},
		SearchTransport: {use: "Elastic Search", note: "Needed by the search engine"},
		Grafana:         {use: "Grafana instrumentation"},
		Maintenance:     {use: "Maintenance", note: "Maintenance tasks from node to node"},
		ICMPEcho:        {use: "Healthcheck", note: "Nodes check each other's health"},

		LB:              {use: "All", peer: balancer, note: "More than one node needs a load balancer"},
		WebtaskCallback: {use: "Webtask", peer: balancer, note: "Rules, webtasks and extensions call back to the appliance's endpoints"},
		CLI:             {use: "Command Line Interface", peer: "CLI applications (often on the internal network)", note: "Remote commands to the appliance"},
		UpdatePackages:  {use: "Updates", peer: "package mirror", host: "apt-mirror.it.auth0.com", addresses: []string{"52.8.153.197"}, note: "Packages for updates of the nodes"},
		UpdateImages:    {use: "Updates", peer: "container registry", host: "docker.it.auth0.com", addresses: []string{"52.9.124.234"}, note: "Container images for updates"},
		CDN:             {use: "Web extensions, Hooks, and Management Dashboard", peer: "asset host", host: "cdn.auth0.com", note: "Needed to run web extensions and hooks, and by the browsers of dashboard administrators"},
		Examples:        {use: "Examples", peer: "source host", host: "github.com", note: "Example applications are downloaded and repackaged from here"},
		Telemetry:       {use: "Usage & Telemetry", peer: "gateway", host: "app-gateway.it.auth0.com", addresses: []string{"52.40.103.203"}, note: "Statistics of usage"},
		JumpHost:        {use: "Maintenance", peer: "Jump Host", note: "Access to the nodes for support"},
		Health:          {use: "Healthcheck", peer: "Monitoring Endpoint", note: "Access to the health endpoints"},
		DNS:             {use: "DNS", peer: "Local domain servers", note: "Names inside and outside are resolved here"},
		Social:          {use: "Social logins", peer: "the social providers in use"},
	})
	t := Table{profile: ProfilePSaaS, notes: []Note{
		{Row: Social, Text: "Where social providers are used for logins, the cluster has to reach the endpoints of those providers."},
		{Row: JumpHost, Text: "The jump host's IP address does not change; it is told when the appliance is set up."},
	}}
	for _, r := range rows {
		if r.ID == Social { // a note of the published list, not a row
			t.noted = append(t.noted, r)
			continue
		}
		t.rows = append(t.rows, r)
	}
	return t
}

func portcullis() Table {
	tcp := []Protocol{TCP}
	rows := append(baseRows(),
		Row{
			ID: SMTP, Section: External, Ports: ports(25, 465, 587), Protocols: tcp, Direction: Outbound,
			Condition: "mail is sent through a server", Owner: "mail", Added: true,
		},
		Row{
			ID: Traces, Section: External, Ports: ports(4318), Protocols: tcp, Direction: Outbound,
			Condition: "a trace endpoint is configured", Owner: "telemetry", Added: true,
		},
	)
	const depot = "your depot"
	say(rows, map[RowID]words{
		Database:        {use: "Database", note: "The cluster's PostgreSQL; any other port by setting. A single node has its database in process"},
		Control:         {use: "Control plane", note: "Membership, commands and cache invalidation, over mutual TLS"},
		RateLimit:       {use: "Rate limiting", note: "Counters that the cluster shares"},
		WebtaskLogs:     {use: "Webtask logging", note: "Live logs of tenants' code, from whichever node runs it"},
		WebtaskControl:  {use: "Webtask control", note: "Starts and stops tenants' code"},
		SearchHTTP:      {use: "Search", note: "OpenSearch or Elasticsearch REST. A single node searches in process"},
		SearchTransport: {use: "Search", note: "The search engine's own traffic between its nodes"},
		Grafana:         {use: "Grafana instrumentation", note: "Dashboards of one node seen from another"},
		Maintenance:     {use: "SSH maintenance", note: "Maintenance from node to node"},
		ICMPEcho:        {use: "Health check", note: "ICMP echo between nodes; without it the health path /status/network reports a failure"},

		LB:              {use: "All logins and APIs", peer: "your load balancer", note: "More than one node needs a load balancer; a single node is its own"},
		WebtaskCallback: {use: "Webtask callbacks", peer: "your load balancer", note: "Rules, webtasks and extensions call the appliance's own endpoints"},
		CLI:             {use: "Command line interface", peer: "CLI clients", note: "Remote commands with a client certificate or a token"},
		UpdatePackages:  {use: "Updates: packages", peer: depot, note: "Signed packages"},
		UpdateImages:    {use: "Updates: container images", peer: depot, note: "Signed images"},
		CDN:             {use: "Assets of web extensions, hooks and the dashboard", peer: depot, note: "The dashboard's own assets are in the binary; extensions may bring more"},
		Examples:        {use: "Example applications", peer: depot, note: "Sources to download and repackage"},
		Telemetry:       {use: "Usage and telemetry", peer: depot, note: "Statistics go to the depot and to nobody else"},
		JumpHost:        {use: "Maintenance access for support", peer: "your jump host", note: "Time-bounded SSH access"},
		Health:          {use: "Health endpoints", peer: "your monitoring", note: "Status paths, details and metrics"},
		DNS:             {use: "DNS", peer: "your domain servers", note: "Names inside and outside"},
		Social:          {use: "Social and enterprise logins", peer: "the identity providers in use", note: "The hosts follow from the connections that exist"},
		SMTP:            {use: "Mail", peer: "your mail server", note: "Verification, password reset and unblock mails"},
		Traces:          {use: "Traces", peer: "your OpenTelemetry collector", note: "OTLP over HTTP"},
	})
	return Table{profile: ProfilePortcullis, rows: rows, notes: []Note{
		{Row: Social, Text: "The published list states the identity providers as a note; here they are a row, because the appliance knows them."},
		{Row: JumpHost, Text: "The jump host is yours; its address does not change unless you change it."},
		{Row: UpdatePackages, Text: "A depot is the same program in another role. Rows whose peer is the depot are declared and unused until a depot is named."},
	}}
}
