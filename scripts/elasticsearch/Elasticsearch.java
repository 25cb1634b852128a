import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/** A real Elasticsearch node for tests: Elasticsearch FOLDER HTTP-PORT TRANSPORT-PORT ADDRESS. */
public class Elasticsearch extends Node {
  Elasticsearch(Settings settings, Path home) {
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
    Elasticsearch node = new Elasticsearch(settings, home);
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
