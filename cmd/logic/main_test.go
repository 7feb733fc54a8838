package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/platform/config"
)

func TestCallers_EveryMethodHasOneAndOnlyFriendMakesFriends(t *testing.T) {
	for _, desc := range []grpc.ServiceDesc{
		logicv1.MessageService_ServiceDesc, logicv1.ConnectionService_ServiceDesc,
		logicv1.GroupService_ServiceDesc, logicv1.ConversationService_ServiceDesc,
	} {
		var methods []string
		for _, m := range desc.Methods {
			methods = append(methods, m.MethodName)
		}
		for _, s := range desc.Streams {
			methods = append(methods, s.StreamName)
		}
		for _, m := range methods {
			full := "/" + desc.ServiceName + "/" + m
			if !callers.Allow("gateway", full) && !callers.Allow("friend", full) {
				t.Errorf("nobody may call %s", full)
			}
		}
	}
	for _, method := range []string{logicv1.ConversationService_SetPrivate_FullMethodName, logicv1.ConversationService_AllocateIDs_FullMethodName} {
		if callers.Allow("gateway", method) {
			t.Errorf("a gateway may call %s", method)
		}
	}
	if callers.Allow("friend", logicv1.MessageService_SendStream_FullMethodName) {
		t.Error("friend may send messages")
	}
}

func TestShippedConfig_LoadsOnceTheSecretIsSet(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	var cfg Config
	if err := config.Load("../../deploy/config/logic.yaml", &cfg); err != nil {
		t.Fatal(err)
	}
}

func TestConfig_NamesTheSettingThatIsMissing(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	for key, want := range map[string]string{
		"IM_DATABASE_DSN":        "database.dsn",
		"IM_CACHE_ADDR":          "cache.addr",
		"IM_PUSH_KEY":            "push.key",
		"IM_DISCOVERY_ENDPOINTS": "discovery.endpoints",
	} {
		t.Run(want, func(t *testing.T) {
			t.Setenv(key, "")
			var cfg Config
			if err := config.Load("../../deploy/config/logic.yaml", &cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v does not name %s", err, want)
			}
		})
	}
}
