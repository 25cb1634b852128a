import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** A real OpenSearch node for tests: OpenSearch FOLDER HTTP-PORT TRANSPORT-PORT ADDRESS. */
public class OpenSearch extends Node {
  OpenSearch(Settings settings, Path home) {
    super(
        InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> "test"),
        List.of(Netty4Plugin.class),
        true);
  }

  public static void main(String[] args) throws Exception {
    Path home = Path.of(args[0]);
    Settings settings =
        Settings.builder()
            .put("path.home", home)
            .put("network.host", args[3])
            .put("http.port", args[1])
            .put("transport.port", args[2])
            .put("discovery.type", "single-node")
            .put("node.processors", 2)
            // A developer's disk is often nearly full, and these indices are small.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
    OpenSearch node = new OpenSearch(settings, home);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        node.close();
      } catch (Exception e) {
        e.printStackTrace();
      }
    }));
    node.start();
    new CountDownLatch(1).await();
  }
}
