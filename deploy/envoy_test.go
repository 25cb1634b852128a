package deploy_test

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// checkEnvoy decodes a configuration as Envoy's own types, each typed_config too:
// an unknown field or a wrong type is an error, and so is what Envoy's rules of
// validation refuse.
func checkEnvoy(t *testing.T, text string) {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	if err := b.ValidateAll(); err != nil {
		t.Error(err)
	}
	configs := 0
	inner(t, b.ProtoReflect(), &configs)
	if configs < 2 {
		t.Errorf("%d typed configurations were looked at", configs)
	}
	// A route leads to a cluster that is there.
	clusters := map[string]bool{}
	for _, c := range b.GetStaticResources().GetClusters() {
		clusters[c.GetName()] = true
	}
	for _, l := range b.GetStaticResources().GetListeners() {
		for _, chain := range l.GetFilterChains() {
			var hcm hcmv3.HttpConnectionManager
			if chain.GetFilters()[0].GetTypedConfig().UnmarshalTo(&hcm) != nil {
				continue // TCP
			}
			if name := hcm.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetCluster(); !clusters[name] {
				t.Errorf("listener %s leads to %q", l.GetName(), name)
			}
		}
	}
}

// inner validates what is packed into messages.
func inner(t *testing.T, m protoreflect.Message, count *int) {
	t.Helper()
	if packed, ok := m.Interface().(*anypb.Any); ok {
		msg, err := packed.UnmarshalNew()
		if err != nil {
			t.Error(err)
			return
		}
		*count++
		if v, ok := msg.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				t.Errorf("%s: %v", proto.MessageName(msg), err)
			}
		}
		inner(t, msg.ProtoReflect(), count)
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				inner(t, v.List().Get(i).Message(), count)
			}
		default:
			inner(t, v.Message(), count)
		}
		return true
	})
}
